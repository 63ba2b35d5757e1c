//! An admin address that answers what a test gave it: stands for a running proxy.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::net::UnixListener,
    thread,
};

/// Answers HTTP/1.1 on a thread of its own until the test process ends.
pub(crate) struct CannedAdmin {
    url: String,
    _folder: Option<tempfile::TempDir>,
}

/// Path with query, status, body.
type Answer = (&'static str, u16, &'static str);

impl CannedAdmin {
    /// On a free port of the loopback address.
    pub(crate) fn tcp(answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.to_vec();
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                answer(&stream, &stream, &answers);
            }
        });
        Self { url, _folder: None }
    }

    /// On a Unix domain socket.
    pub(crate) fn unix(answers: &[Answer]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = answers.to_vec();
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                answer(&stream, &stream, &answers);
            }
        });
        Self { url: format!("unix:{}", path.display()), _folder: Some(folder) }
    }

    /// What to give as `--admin`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// Answers one request; what no answer was given for is 404 and repeats what was asked.
fn answer(reader: impl Read, mut writer: impl Write, answers: &[Answer]) {
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    let request = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let asked = request.trim_start_matches("GET ").trim_end_matches(" HTTP/1.1");
    let (status, body) = match answers.iter().find(|(path, ..)| *path == asked) {
        Some((_, status, body)) => (*status, (*body).to_owned()),
        None => (404, format!("asked {asked}")),
    };
    let head = format!("HTTP/1.1 {status} \r\ncontent-length: {}\r\n\r\n", body.len());
    // A client that went away is the test's to notice.
    let _ = writer.write_all(format!("{head}{body}").as_bytes());
}
