//! What an endpoint's own health service says of it.

use std::time::Duration;

use bytes::Bytes;
use h2::client;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use tokio::time::timeout;

use super::{ProbeError, connect};
use crate::model::Address;

/// Where every server has it that has it at all.
const PATH: &str = "/grpc.health.v1.Health/Check";
/// Longest answer that is read; a whole one has 7 bytes.
const MAX_ANSWER: usize = 4096;
/// An empty `HealthCheckRequest`, which is about the server as a whole: not compressed, 0 bytes.
const ASK: &[u8] = &[0; 5];

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// SERVING.
    Serving,
    /// Another status, by its name.
    Not(String),
    /// It has no health service, which many servers do not.
    None,
}

/// Asks `grpc.health.v1.Health/Check` of the server as a whole, for at most `limit` after connecting.
///
/// # Errors
/// [`ProbeError`] when it cannot be connected to, or does not answer as a gRPC server does.
pub async fn health(address: &Address, limit: Duration) -> Result<Health, ProbeError> {
    let stream = connect(address, limit).await?;
    let exchange = async {
        let (client, connection) = client::handshake(stream).await?;
        let asked = async {
            let mut client = client.ready().await?;
            let (answer, mut body) = client.send_request(request(address), false)?;
            body.send_data(Bytes::from_static(ASK), true)?;
            let (head, mut body) = answer.await?.into_parts();
            let mut message = Vec::new();
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                message.extend_from_slice(&data[..data.len().min(MAX_ANSWER - message.len())]);
            }
            let trailers = body.trailers().await?.unwrap_or_default();
            Ok((head.headers, message, trailers))
        };
        tokio::pin!(asked);
        tokio::select! {
            answer = &mut asked => answer,
            // What it has brought by then can still be read.
            _ = connection => asked.await,
        }
    };
    match timeout(limit, exchange).await {
        Err(_) => Err(ProbeError::NoAnswer(limit)),
        Ok(Err(error)) => Err(ProbeError::Broken(error)),
        Ok(Ok((head, message, trailers))) => Ok(judge(&head, &message, &trailers)),
    }
}

fn judge(head: &HeaderMap, message: &[u8], trailers: &HeaderMap) -> Health {
    // In an answer without a body it is among the headers.
    let code = trailers.get("grpc-status").or_else(|| head.get("grpc-status"));
    match (code.map(HeaderValue::as_bytes), message) {
        // UNIMPLEMENTED.
        (Some(b"12"), _) => Health::None,
        // The status field, after five bytes of frame; its default is left out.
        (Some(b"0"), [_, _, _, _, _, 8, 1, ..]) => Health::Serving,
        (Some(b"0"), [_, _, _, _, _, 8, 2, ..]) => Health::Not("NOT_SERVING".to_owned()),
        (Some(b"0"), [_, _, _, _, _, 8, 3, ..]) => Health::Not("SERVICE_UNKNOWN".to_owned()),
        (Some(b"0"), [_, _, _, _, _]) => Health::Not("UNKNOWN".to_owned()),
        (Some(code), _) => Health::Not(format!("grpc-status {}", String::from_utf8_lossy(code))),
        (None, _) => Health::Not("an answer without grpc-status".to_owned()),
    }
}

fn request(address: &Address) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    // An address that no URI can hold cannot have been connected to.
    let uri = Uri::builder().scheme("http").authority(address.as_str()).path_and_query(PATH);
    *request.uri_mut() = uri.build().unwrap_or_default();
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_status_and_message() {
        let headers = |code: &'static str| {
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])
        };
        let none = HeaderMap::new();
        let with = |status| judge(&none, &[0, 0, 0, 0, 2, 8, status], &headers("0"));
        assert_eq!(with(1), Health::Serving);
        assert_eq!(with(2), Health::Not("NOT_SERVING".to_owned()));
        assert_eq!(judge(&none, &[0; 5], &headers("0")), Health::Not("UNKNOWN".to_owned()));
        assert_eq!(judge(&headers("12"), &[], &none), Health::None);
        assert_eq!(judge(&headers("14"), &[], &none), Health::Not("grpc-status 14".to_owned()));
        assert!(matches!(judge(&none, &[], &none), Health::Not(_)));
    }
}
