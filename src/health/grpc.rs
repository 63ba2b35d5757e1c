//! Whether `grpc.health.v1.Health/Check` says SERVING.

use bytes::Bytes;
use h2::{Reason, RecvStream, client};
use http::{HeaderMap, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Unwell;
use crate::model::Address;

/// Where every server has it that has it at all.
const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read; a whole one has 7 bytes.
const MAX_ANSWER: usize = 4096;
/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// Names of `ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks about `service` on a connection to `address`; the empty one is the server as a whole. `scheme` is
/// "https" where the connection speaks TLS.
///
/// # Errors
/// [`Unwell`] says why it is not well.
pub async fn ask<T>(stream: T, address: &Address, scheme: &str, service: &str) -> Result<(), Unwell>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let protocol = |error: h2::Error| Unwell::Protocol(format!("{address}: {error}"));
    let (client, connection) = client::handshake(stream).await.map_err(protocol)?;
    let exchange = async {
        let mut client = client.ready().await?;
        let (answer, mut body) = client.send_request(request(address, scheme), false)?;
        body.send_data(message(service), true)?;
        let (head, body) = answer.await?.into_parts();
        let (message, trailers) = read(body).await?;
        Ok((head, message, trailers))
    };
    tokio::pin!(exchange);
    let answer = tokio::select! {
        answer = &mut exchange => answer,
        // What it has brought by then can still be read.
        _ = connection => exchange.await,
    };
    let (head, message, trailers) = answer.map_err(protocol)?;
    if !head.status.is_success() {
        return Err(Unwell::Protocol(format!("{address}: HTTP status {}", head.status)));
    }
    // In an answer without a body it is among the headers.
    let code = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    match code.map(http::HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(b"12") => return Err(Unwell::Mute(address.to_string())),
        Some(b"5") => {
            return Err(Unwell::Says(format!(
                "{address}: the server knows no service {service:?}"
            )));
        }
        code => {
            let code = String::from_utf8_lossy(code.unwrap_or_default());
            return Err(Unwell::Says(format!("{address}: grpc-status {code:?}")));
        }
    }
    match status(&message) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let name = usize::try_from(other).ok().and_then(|at| STATUSES.get(at));
            Err(Unwell::Says(format!("{address}: {}", name.unwrap_or(&"an unknown status"))))
        }
        None => Err(Unwell::Protocol(format!("{address}: not an answer of the health service"))),
    }
}

fn request(address: &Address, scheme: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    // An address that no URI can hold cannot have been connected to.
    let uri = Uri::builder().scheme(scheme).authority(address.as_str()).path_and_query(PATH);
    *request.uri_mut() = uri.build().unwrap_or_default();
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        request.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    request
}

/// `HealthCheckRequest { service: 1 }`, not compressed, with its length before it.
fn message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// The body, up to [`MAX_ANSWER`], and the trailers.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), h2::Error> {
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        message.extend_from_slice(&data?);
        if message.len() > MAX_ANSWER {
            return Err(Reason::INTERNAL_ERROR.into());
        }
    }
    Ok((message, body.trailers().await?.unwrap_or_default()))
}

/// `HealthCheckResponse.status`, field 1, a varint; 0 when it is left out.
fn status(framed: &[u8]) -> Option<u64> {
    let (head, message) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
    match (head[0], message) {
        (0, message) if message.len() != length => None,
        (0, []) => Some(0),
        (0, [0x08, value]) if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_its_message_and_from_no_other() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        for odd in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 8], &[1, 0, 0, 0, 2, 8, 1], b"<html>"]
        {
            assert_eq!(status(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_message_names_the_service_as_protobuf_does() {
        assert_eq!(&*message(""), [0, 0, 0, 0, 0]);
        assert_eq!(&*message("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = "x".repeat(300);
        assert_eq!(message(&long)[5..8], [0x0a, 0xac, 0x02]);
    }
}
