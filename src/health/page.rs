//! Whether GET of a page answers 2xx.

use http::{Request, Uri, header::HOST};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{Unwell, tcp};

/// Asks for the page, without following redirects.
pub(super) async fn ask(url: &Uri) -> Result<(), Unwell> {
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(80));
    let stream = tcp::connect(&format!("{host}:{port}"), None).await?;
    let protocol = |error: hyper::Error| Unwell::Protocol(format!("{url}: {error}"));
    let (mut client, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(protocol)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path).header(HOST, authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| Unwell::Protocol(format!("{url}: {error}")))?;
    let answer = client.send_request(request);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // What it has brought by then can still be read.
        _ = connection => answer.await,
    };
    let status = answer.map_err(protocol)?.status();
    match status.is_success() {
        true => Ok(()),
        false => Err(Unwell::Says(format!("{url} answers {status}"))),
    }
}
