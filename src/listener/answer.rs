//! Answers that the proxy itself gives: the one place that turns an error into bytes.

use std::fmt::Write;

use bytes::Bytes;
use h2::{Reason as Code, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};

use super::why;
use crate::{
    call::{CallError, CallMeta, Kind},
    model::GrpcStatus,
    retry::{PUSHBACK, Pushback},
};

const PILLION_ERROR: HeaderName = HeaderName::from_static("pillion-error");
const PILLION_WHY: HeaderName = HeaderName::from_static("pillion-why");

/// Answers a call whose answer has not begun: trailers-only for gRPC, else a status and a text.
pub(super) fn refuse(respond: &mut SendResponse<Bytes>, meta: &CallMeta, error: &CallError) {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    explain(headers, meta);
    if meta.kind == Kind::Grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        status(headers, error);
        // It can only fail when the caller is gone.
        let _ = respond.send_response(response, true);
        return;
    }
    let body = Bytes::from(format!("{}\n", error.message));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    name_reason(headers, Kind::Http, error);
    if let Some(Pushback::After(after)) = error.pushback {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs() + 1));
    }
    *response.status_mut() = http::StatusCode::from_u16(error.statuses.http).unwrap_or_default();
    if let Ok(mut stream) = respond.send_response(response, false) {
        let _ = stream.send_data(body, true);
    }
}

/// Ends an answer that has begun: trailers for gRPC, else a reset. Never a clean end, which many
/// clients take NO_ERROR and CANCEL for.
pub(super) fn break_off(down: &mut SendStream<Bytes>, meta: &CallMeta, error: &CallError) {
    if meta.kind != Kind::Grpc {
        return down.send_reset(Code::INTERNAL_ERROR);
    }
    let mut trailers = HeaderMap::with_capacity(3);
    status(&mut trailers, error);
    if down.send_trailers(trailers).is_err() {
        down.send_reset(Code::INTERNAL_ERROR);
    }
}

/// Adds `pillion-why` where the caller asked for it: the decision in one line.
pub(super) fn explain(headers: &mut HeaderMap, meta: &CallMeta) {
    if !meta.explain.get() {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(percent_encode(&why::line(meta))) {
        headers.insert(PILLION_WHY, value);
    }
}

fn status(headers: &mut HeaderMap, error: &CallError) {
    headers.insert(GrpcStatus::HEADER, HeaderValue::from(u16::from(error.statuses.grpc.code())));
    if let Ok(message) = HeaderValue::try_from(percent_encode(&error.message)) {
        headers.insert(GrpcStatus::MESSAGE_HEADER, message);
    }
    name_reason(headers, Kind::Grpc, error);
    if let Some(pushback) = error.pushback {
        headers.insert(PUSHBACK, pushback.to_value());
    }
}

/// Says who made the error; a good answer is none.
fn name_reason(headers: &mut HeaderMap, kind: Kind, error: &CallError) {
    if kind.is_error(error.statuses) {
        headers.insert(PILLION_ERROR, HeaderValue::from_static(error.reason.as_str()));
    }
}

/// Encodes bytes outside 0x20 to 0x7E, and `%` (gRPC over HTTP/2, "Status-Message").
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_percent_encoded_outside_of_printable_ascii() {
        assert_eq!(percent_encode("100% \u{fc}\n"), "100%25 %C3%BC%0A");
    }
}
