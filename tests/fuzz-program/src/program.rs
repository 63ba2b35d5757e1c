//! The whole program, in this process, on Unix sockets: applications and operators that write anything.

use std::{
    cell::RefCell,
    fs,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{LazyLock, mpsc},
    thread,
    time::Duration,
};

use pillion::{
    app::{self, Program},
    config::{self, Overrides},
    telemetry,
};
use tempfile::TempDir;

/// Long enough for a busy machine; what takes longer hangs.
const SOON: Duration = Duration::from_secs(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Connects the calls that one has in mind while one reads code: an endpoint that echoes, one that is
/// down, answers of routes, a limit.
const CONFIG: &str = r#"
workers = 1
[service.limited.limits]
rate = 1
[[route]]
authority = "a"
respond = { http_status = 200, message = "here" }
[[route]]
authority = "*.b"
service = "echo"
filter = "version=v1;"
[[source]]
kind = "file"
path = "services.toml"
"#;

struct Running {
    folder: TempDir,
}

static RUNNING: LazyLock<Running> = LazyLock::new(Running::start);

impl Running {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let echo = echo();
        let services = ["echo", "limited"].map(|service| entry(service, echo)).concat();
        let down = entry("down", ([127, 0, 0, 1], 1).into());
        fs::write(at("services.toml"), services + &down).expect("a file can be written");
        fs::write(at("pillion.toml"), CONFIG).expect("a file can be written");
        let socket = |name: &str| format!("unix:{}", at(name).display()).parse().expect("a path");
        let overrides = Overrides {
            listen: vec![socket("listener")],
            admin: Some(socket("admin")),
            ..Overrides::default()
        };
        let loaded = config::load(Some(&at("pillion.toml")), &overrides).expect("it is good");
        let again = loaded.clone();
        let (tell, started) = mpsc::channel();
        thread::spawn(move || {
            let log = telemetry::start("off").expect("a level");
            let reload = Box::new(move |_| Ok(again.clone()));
            let ended = app::run(
                Program { loaded, reload, log },
                |_| tell.send(()).expect("somebody waits"),
                std::future::pending(),
            );
            panic!("the program ended: {ended:?}");
        });
        started.recv().expect("it starts");
        Self { folder }
    }

    fn connect(&self, socket: &str) -> UnixStream {
        let path: PathBuf = self.folder.path().join(socket);
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        stream
    }
}

fn entry(service: &str, address: SocketAddr) -> String {
    format!("[[endpoint]]\nservice = \"{service}\"\naddress = \"{address}\"\nversion = \"v1\"\n")
}

/// An endpoint that sends back what it is sent.
fn echo() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a mode");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp));
            }
        });
    });
    address
}

async fn serve(tcp: tokio::net::TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(tcp).await?;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut stream = respond.send_response(http::Response::new(()), false)?;
            while let Some(piece) = body.data().await {
                let piece: bytes::Bytes = piece?;
                body.flow_control().release_capacity(piece.len())?;
                stream.send_data(piece, false)?;
            }
            let status =
                (http::HeaderName::from_static("grpc-status"), "0".parse().expect("a value"));
            stream.send_trailers([status].into_iter().collect())
        });
    }
    Ok(())
}

/// Bytes from an application, behind a good preface but where the first of them is odd. Its connection
/// ends soon after it has ended its own side, and the program goes on.
///
/// # Panics
/// When something does not hold, as in all of these.
pub fn frames(data: &[u8]) {
    let Some((how, frames)) = data.split_first() else { return };
    let mut application = RUNNING.connect("listener");
    let preface = if how & 1 == 0 { PREFACE } else { &[] };
    // It may have been cut off before it has said all.
    let _ = application.write_all(&[preface, frames].concat());
    if how & 2 == 0 {
        read_for(&mut application, Duration::from_millis(2));
    }
    let _ = application.shutdown(std::net::Shutdown::Write);
    if !read_for(&mut application, SOON) {
        panic!("the connection did not end");
    }
}

/// Whether it came to the end.
fn read_for(stream: &mut UnixStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).expect("a limit");
    let mut some = [0; 4096];
    loop {
        match stream.read(&mut some) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return false,
                _ => return true,
            },
        }
    }
}

thread_local! {
    static OPERATOR: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
}

/// A path and query of the admin address: answered at once, with JSON where it says so.
pub fn admin(data: &[u8]) {
    let mut target = String::from("/");
    for byte in data {
        match byte {
            b'!'..=b'~' if *byte != b'#' => target.push(char::from(*byte)),
            byte => target += &format!("%{byte:02X}"),
        }
    }
    // Which does not end; and what hyper refuses by itself.
    if target.contains("follow") || target.len() > 60_000 || target.parse::<http::Uri>().is_err() {
        return;
    }
    let mut operator = OPERATOR.take().unwrap_or_else(|| RUNNING.connect("admin"));
    let request = format!("GET {target} HTTP/1.1\r\nhost: admin\r\n\r\n");
    if operator.write_all(request.as_bytes()).is_err() {
        return;
    }
    let mut answer = Vec::new();
    let end = loop {
        let mut some = [0; 16 << 10];
        let read = match operator.read(&mut some) {
            // By the fuzzer's own timer.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap_or_else(|error| panic!("{target}: {error}")),
        };
        answer.extend_from_slice(&some[..read]);
        if let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            break head + 4;
        }
        assert!(read > 0, "{target}: closed without an answer");
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    let length: usize =
        field("content-length").and_then(|length| length.parse().ok()).expect(&head);
    let mut body = answer.split_off(end);
    let read = body.len();
    body.resize(length, 0);
    operator.read_exact(&mut body[read..]).unwrap_or_else(|error| panic!("{target}: {error}"));
    if field("content-type").is_some_and(|kind| kind == "application/json") {
        serde_json::from_slice::<serde_json::Value>(&body)
            .unwrap_or_else(|error| panic!("{target}: {error}"));
    }
    if !head.contains("connection: close") {
        OPERATOR.set(Some(operator));
    }
}
