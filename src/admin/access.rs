//! Who may ask the admin address, and for what.
//!
//! Whoever reaches it may read what this proxy knows, and end it. So it is reached by a loopback address
//! or a Unix socket, or needs a token or a certificate. On loopback there is one more who reaches it and must not: a page
//! in a browser of this host. It is told by the name in `host`, when the page's own name was made to
//! stand for 127.0.0.1 (DNS rebinding), and, when it sends a change elsewhere, by what browsers put on
//! such requests and programs do not.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING},
    request, uri,
};
use subtle::ConstantTimeEq;

use crate::config::{AdminSettings, read_token};

/// Sent by programs that mean it: no form can, and no script of another page without asking first.
const MEANT: &str = "x-pillion-admin";

/// What a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// All that it asks for.
    All,
    /// Whether the process lives and is ready, and nothing of why.
    Health,
}

/// Why it gets nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error(
        "this admin address asks for a token: authorization: Bearer TOKEN; `pillion` sends the one \
         that --admin-token-file names"
    )]
    Token,
    #[error("the token of this admin address cannot be read now; its log says why")]
    Unreadable,
    #[error(
        "{0:?} is no name of this admin address; allowed are names without a dot, loopback \
         addresses, the address that it listens on, and `hosts` of [admin]"
    )]
    Host(String),
    #[error(
        "a page in a browser may not change anything here; a program that sends origin, sec-fetch-* \
         or a form sends {MEANT}: 1 as well"
    )]
    Page,
}

impl Denied {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Unreadable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Page => StatusCode::FORBIDDEN,
        }
    }
}

/// Decides about a request that came in at `local`; none for a Unix socket.
pub(super) fn decide(
    settings: &AdminSettings,
    local: Option<IpAddr>,
    request: &request::Parts,
) -> Result<Grant, Denied> {
    let (headers, path) = (&request.headers, request.uri.path());
    if !matches!(request.method, Method::GET | Method::HEAD)
        && is_of_page(headers)
        && !headers.contains_key(MEANT)
    {
        return Err(Denied::Page);
    }
    match (&settings.token_file, local) {
        (Some(file), _) => match shown_token(headers) {
            Some(shown) => {
                let token = read_token(file).map_err(|error| {
                    tracing::error!(%error, "admin: nobody is let in");
                    Denied::Unreadable
                })?;
                let same: bool = token.as_bytes().ct_eq(shown).into();
                same.then_some(Grant::All).ok_or(Denied::Token)
            }
            // For whoever starts and watches the process, and has no token.
            None if matches!(path, "/live" | "/ready") => Ok(Grant::Health),
            None => Err(Denied::Token),
        },
        // A name that a page was made to have gets it nowhere without the token, nor where the certificate
        // is for another.
        (None, Some(_)) if settings.tls.is_some() => Ok(Grant::All),
        (None, Some(local)) => named(settings, local, headers).map(|()| Grant::All),
        // No browser speaks to a file.
        (None, None) => Ok(Grant::All),
    }
}

/// Whether `host` is a name of this address. HTTP/1.0 may leave it out; no browser does.
fn named(settings: &AdminSettings, local: IpAddr, headers: &HeaderMap) -> Result<(), Denied> {
    let Some(host) = headers.get(HOST) else { return Ok(()) };
    let text = host.to_str().unwrap_or_default();
    let authority = text.parse::<uri::Authority>().ok();
    let name = authority.as_ref().map_or("", |authority| authority.host());
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_ours = match address {
        Ok(address) => address.is_loopback() || address == local,
        // Nobody can have a name without a dot in the public DNS: localhost, or a container's.
        Err(_) if !name.contains('.') => !name.is_empty(),
        Err(_) => settings.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)),
    };
    is_ours.then_some(()).ok_or_else(|| Denied::Host(text.to_owned()))
}

/// Whether a browser has sent it for a page. All that are in use put `origin` on a change, and
/// `sec-fetch-*` too; a form has one of three types.
fn is_of_page(headers: &HeaderMap) -> bool {
    const FORMS: [&str; 3] =
        ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    headers.contains_key(ORIGIN)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
        || (has_body && FORMS.iter().any(|form| form.eq_ignore_ascii_case(kind)))
}

/// What follows `Bearer` (RFC 6750 section 2.1).
fn shown_token(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// What a browser does with an answer that it gets in spite of all: nothing.
pub(super) fn harden(headers: &mut HeaderMap) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::Request;

    use super::*;
    use crate::config::{ListenerTls, TlsVersion};

    const LOOPBACK: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn request(line: &str, headers: &[(&str, &str)]) -> request::Parts {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(settings: &AdminSettings, line: &str, headers: &[(&str, &str)]) -> u16 {
        match decide(settings, LOOPBACK, &request(line, headers)) {
            Ok(Grant::All) => 200,
            Ok(Grant::Health) => 204,
            Err(denied) => denied.status().as_u16(),
        }
    }

    #[test]
    fn only_names_that_cannot_be_made_to_stand_for_this_host_are_answered() {
        let hosts = vec!["admin.internal".to_owned()];
        let settings = AdminSettings { hosts, ..AdminSettings::default() };
        for good in [
            "localhost",
            "LOCALHOST:4191",
            "pillion",
            "127.0.0.1:4191",
            "[::1]:1",
            "admin.internal:80",
        ] {
            assert_eq!(status(&settings, "GET /services", &[("host", good)]), 200, "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example:4191",
            "192.0.2.1",
            "",
            "localhost@evil.example",
        ] {
            assert_eq!(status(&settings, "GET /services", &[("host", bad)]), 421, "{bad}");
        }
        assert_eq!(status(&settings, "GET /services", &[]), 200);
        let rebound = request("GET /", &[("host", "evil.example")]);
        assert_eq!(decide(&settings, None, &rebound).unwrap(), Grant::All, "by a Unix socket");
    }

    #[test]
    fn where_a_certificate_tells_who_is_asked_any_name_is_answered_but_no_page_changes_anything() {
        let tls = ListenerTls {
            cert: "server.pem".into(),
            key: "server.key".into(),
            client_ca: None,
            allow: Vec::new(),
            min_version: TlsVersion::default(),
        };
        let settings = AdminSettings { tls: Some(tls), ..AdminSettings::default() };
        let host = ("host", "pillion.example:4191");
        assert_eq!(status(&settings, "GET /services", &[host]), 200);
        assert_eq!(status(&settings, "POST /drain", &[host, ("origin", "null")]), 403);
    }

    #[test]
    fn a_page_changes_nothing_and_a_program_does() {
        let settings = AdminSettings::default();
        let form = "application/x-www-form-urlencoded";
        for page in [
            &[("origin", "null")][..],
            &[("sec-fetch-site", "cross-site")],
            &[("content-type", form), ("content-length", "3")],
            &[("content-type", "Text/Plain; charset=x"), ("transfer-encoding", "chunked")],
        ] {
            assert_eq!(status(&settings, "POST /drain", page), 403, "{page:?}");
            assert_eq!(status(&settings, "GET /services", page), 200, "{page:?}");
            let meant = [page, &[(MEANT, "1")]].concat();
            assert_eq!(status(&settings, "PUT /log", &meant), 200, "{page:?}");
        }
        // As curl, and Python's urllib, send a change without a body.
        for program in [&[][..], &[("content-type", form), ("content-length", "0")]] {
            assert_eq!(status(&settings, "POST /drain", program), 200, "{program:?}");
        }
    }

    #[test]
    fn where_there_is_a_token_nobody_gets_more_than_health_without_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "open-sesame-0123456789\n").unwrap();
        let token_file = Some(file.path().to_owned());
        let settings = AdminSettings { token_file, ..AdminSettings::default() };
        let with = |line, value| status(&settings, line, &[("authorization", value)]);
        assert_eq!(with("GET /services", "Bearer open-sesame-0123456789"), 200);
        assert_eq!(with("GET /services", "bearer  open-sesame-0123456789"), 200);
        for bad in ["Bearer open-sesame-012345678", "Bearer ", "Basic x", "open-sesame-0123456789"]
        {
            assert_eq!(with("GET /services", bad), 401, "{bad}");
        }
        assert_eq!(status(&settings, "GET /ready", &[("host", "pod-7:4191")]), 204);
        assert_eq!(status(&settings, "GET /metrics", &[]), 401);
        fs::write(file.path(), "changed-0123456789").unwrap();
        assert_eq!(with("GET /services", "Bearer changed-0123456789"), 200);
        fs::write(file.path(), "short").unwrap();
        assert_eq!(with("GET /services", "Bearer short"), 503);
    }
}
