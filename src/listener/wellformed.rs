//! What a call must be like (RFC 9113 sections 8.2 and 8.3, RFC 9110 sections 4.2 and 7.1), beyond what h2
//! refuses by itself: anything that others could read in another way than this proxy does.
//!
//! A call that is not is answered, so that its client learns what is wrong, and goes no further.

use http::{HeaderMap, Method, header::HOST, request};

use super::limits::Breach;
use crate::{
    call::{CallError, Fields},
    config::ListenerLimits,
    model::{GrpcStatus, Reason, Statuses},
};

/// Why a call is refused, and which limit it exceeds if it is for that.
pub(super) type Refused = (Option<Breach>, CallError);

/// Looks at the head of a call; tells its size.
pub(super) fn check(head: &request::Parts, limits: &ListenerLimits) -> Result<usize, Refused> {
    check_target(head).map_err(|error| (None, error))?;
    check_headers(&head.headers, limits)
}

fn malformed(text: impl Into<String>) -> CallError {
    CallError::new(Reason::BadRequest, text)
}

fn check_target(head: &request::Parts) -> Result<(), CallError> {
    if head.method == Method::CONNECT {
        let statuses = Statuses { grpc: GrpcStatus::UNIMPLEMENTED, http: 501 };
        let text = "CONNECT asks for a tunnel, which this proxy does not open";
        return Err(CallError { statuses, ..malformed(text) });
    }
    if let Some(scheme) = head.uri.scheme().filter(|s| !matches!(s.as_str(), "http" | "https")) {
        return Err(malformed(format!(":scheme {:?}; allowed: http, https", scheme.as_str())));
    }
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let is_asterisk = path == "*" && head.method == Method::OPTIONS;
    if !path.starts_with('/') && !is_asterisk {
        return Err(malformed(format!(":path {path:?} does not begin with a slash")));
    }
    if !path.is_ascii() {
        return Err(malformed(":path holds bytes that are to be percent-encoded"));
    }
    match head.uri.authority() {
        Some(authority) => check_port(authority.as_str()),
        None => check_host(&head.headers),
    }
}

/// Beside an `:authority` a `host` is dropped, whatever it says; alone it stands for one.
fn check_host(headers: &HeaderMap) -> Result<(), CallError> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(malformed("two host headers, and no :authority")),
        (Some(host), None) => {
            check_port(host.to_str().map_err(|_| malformed("header host is no text"))?)
        }
        (None, _) => Ok(()),
    }
}

fn check_port(authority: &str) -> Result<(), CallError> {
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && port.parse::<u16>().is_err() {
        let text = format!("authority {authority:?}: {port} is no port, the highest is 65535");
        return Err(CallError::new(Reason::BadAuthority, text));
    }
    Ok(())
}

/// A head that is larger still than what the limits may be, h2 answers with 431.
fn check_headers(headers: &HeaderMap, limits: &ListenerLimits) -> Result<usize, Refused> {
    let Fields { bytes, padded, lengths } = Fields::of(headers);
    let exceeds =
        |breach, text: String| Err((Some(breach), CallError::new(Reason::Overloaded, text)));
    let (count, most) = (headers.len(), limits.max_headers);
    if count > most as usize {
        let text = format!("{count} headers, at most {most} are let through; see max_headers");
        return exceeds(Breach::Headers, text);
    }
    let most = limits.max_header_size;
    if bytes > most as usize {
        let text = format!(
            "metadata of {bytes} bytes, at most {most} are let through; see max_header_size"
        );
        return exceeds(Breach::HeaderSize, text);
    }
    if let Some(name) = padded {
        let text = format!("the value of header {name} begins or ends with a space");
        return Err((None, malformed(text)));
    }
    if lengths > 1 {
        return Err((None, malformed("two content-length headers")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn refused(request: request::Builder) -> Option<(&'static str, u16, u8)> {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let refused = check(&head, &ListenerLimits::default()).err();
        refused.map(|(_, error)| {
            (error.reason.as_str(), error.statuses.http, error.statuses.grpc.code())
        })
    }

    #[test]
    fn what_others_may_read_in_another_way_is_refused() {
        let bad_request = Some(("bad_request", 400, 3));
        let at = |uri: &str| Request::post(uri.to_owned());
        let good = || at("http://orders/a.B/C");
        for (request, expected) in [
            (good(), None),
            (at("http://orders:65535/"), None),
            (at("ftp://orders/"), bad_request),
            (at("http://orders:/"), None),
            (at("http://orders@10.0.0.1:80/"), None),
            (Request::options("*"), None),
            (Request::get("*"), bad_request),
            (Request::connect("orders:80"), Some(("bad_request", 501, 12))),
            (at("/%C3%BC"), None),
            (at("/\u{fc}"), bad_request),
            (at("http://orders:65536/"), Some(("bad_authority", 400, 3))),
            (at("http://orders@10.0.0.1:99999/"), Some(("bad_authority", 400, 3))),
            (at("/").header("host", "orders:99999"), Some(("bad_authority", 400, 3))),
            (at("/").header("host", "orders"), None),
            (at("/"), None),
            (at("/").header("host", "orders").header("host", "orders"), bad_request),
            (at("/").header("host", [0xff, 0xfe].as_slice()), bad_request),
            (good().header("host", "one").header("host", "two"), None),
            (good().header("content-length", "3").header("content-length", "3"), bad_request),
            (good().header("x-a", "a b"), None),
            (good().header("x-a", ""), None),
            (good().header("x-a", " a"), bad_request),
            (good().header("x-a", "a\t"), bad_request),
        ] {
            let shown = format!("{request:?}");
            assert_eq!(refused(request), expected, "{shown}");
        }
    }

    #[test]
    fn as_many_headers_and_bytes_as_are_allowed_pass_and_one_more_does_not() {
        let limits = ListenerLimits { max_headers: 2, max_header_size: 100, ..Default::default() };
        let headers = |lengths: &[usize]| {
            let one = |(at, length): (usize, &usize)| {
                let name = http::HeaderName::try_from(format!("x{at}")).unwrap();
                (name, "v".repeat(*length).parse().unwrap())
            };
            lengths.iter().enumerate().map(one).collect::<HeaderMap>()
        };
        let check = |lengths: &[usize]| {
            check_headers(&headers(lengths), &limits).map_err(|(breach, _)| breach)
        };
        assert_eq!(check(&[16, 16]), Ok(100));
        assert_eq!(check(&[16, 17]), Err(Some(Breach::HeaderSize)));
        assert_eq!(check(&[1, 1, 1]), Err(Some(Breach::Headers)));
    }
}
