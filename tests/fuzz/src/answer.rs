//! What endpoints say to a call that has a connection for itself.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::single::Connection;

/// An endpoint that says so much, so many bytes at a time, and closes the connection.
struct Endpoint<'a> {
    says: &'a [u8],
    at_a_time: usize,
}

impl AsyncRead for Endpoint<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = self.says.len().min(buf.remaining()).min(self.at_a_time);
        let (now, later) = self.says.split_at(bytes);
        buf.put_slice(now);
        self.says = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endpoint<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Has an endpoint say `data`, and looks at what comes of it.
///
/// # Panics
/// When it is not the same however it is cut, or more is kept than was said.
pub fn answer(data: &[u8]) {
    let whole = came(data, usize::MAX);
    assert_eq!(whole, came(data, 1), "byte by byte it is another answer");
    assert_eq!(whole, came(data, 7), "in parts it is another answer");
}

/// All that a call gets of what an endpoint says.
fn came(says: &[u8], at_a_time: usize) -> Vec<String> {
    let mut connection = Connection::new(Endpoint { says, at_a_time });
    let request = Request::post("http://a/b").body(()).expect("a call");
    connection.send_request(&request, true).expect("nothing has been said yet");
    let mut cx = Context::from_waker(Waker::noop());
    // The end is always reached, with two turns for each byte at most.
    for _ in 0..2 * says.len() + 2 {
        connection.drive(&mut cx, None);
    }
    assert!(connection.held() <= says.len(), "no more is kept than was said");
    let (mut all, mut body) = (Vec::new(), Vec::new());
    match connection.poll_response() {
        Poll::Ready(Ok(head)) => all.push(format!("{head:?}")),
        other => return vec![format!("{other:?}")],
    }
    let end = loop {
        match connection.poll_data() {
            Poll::Ready(Some(Ok(part))) => {
                connection.release(part.len());
                body.extend_from_slice(&part);
            }
            Poll::Ready(None) => break format!("{:?}", connection.poll_trailers()),
            other => break format!("{other:?}"),
        }
    };
    all.extend([format!("{body:?}"), end]);
    all
}
