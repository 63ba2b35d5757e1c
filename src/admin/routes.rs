//! Which path is answered by what.

use std::net::IpAddr;

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use prometheus::TextEncoder;
use serde_json::{Value, json};

use super::{
    Admin,
    access::{self, Denied, Grant},
    calls::{self, Lines},
    registrations, reports, why,
};
use crate::config;

const PATHS: &str = "/metrics /live /ready /services /services/NAME /why?authority= /calls /registrations /registrations/NAME /config; POST /drain, PUT /log?level=, PUT /registrations/NAME";

/// A page, or lines that go on.
pub(super) type Body = Either<Full<Bytes>, Lines>;

/// Answers one request.
pub(super) async fn answer(
    request: Request<Incoming>,
    local: Option<IpAddr>,
    admin: &Admin,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let grant = match access::decide(&admin.access, local, &head) {
        Ok(grant) => grant,
        Err(denied) => return refuse(&denied).map(Either::Left),
    };
    let request = Request::from_parts(head, body);
    let query = Query::new(request.uri().query().unwrap_or(""));
    if let Err(wrong) = check(request.uri().path(), &query) {
        return error(StatusCode::BAD_REQUEST, &wrong).map(Either::Left);
    }
    match (request.uri().path(), request.method(), grant) {
        ("/ready", _, Grant::Health) => health(ready(admin).status()).map(Either::Left),
        ("/calls", &Method::GET | &Method::HEAD, _) => calls::answer(admin, &query),
        _ => page(request, &query, admin).await.map(Either::Left),
    }
}

/// Whether a page takes all of the parameters: one that is misspelt would be as if it were not there.
fn check(path: &str, query: &Query) -> Result<(), String> {
    let allowed: &[&str] = match path {
        "/why" => &why::PARAMETERS,
        "/log" => &["level"],
        "/services" | "/registrations" | "/config" | "/drain" => &[],
        _ if path.starts_with("/services/") || path.starts_with("/registrations/") => &[],
        // It looks for itself, or is no page; probes and scrapes may say to others what they like.
        _ => return Ok(()),
    };
    let Some((unknown, _)) = query.iter().find(|(name, _)| !allowed.contains(name)) else {
        return Ok(());
    };
    let allowed = if allowed.is_empty() { "none here".to_owned() } else { allowed.join(", ") };
    Err(format!("unknown parameter {unknown:?}; allowed: {allowed}"))
}

fn refuse(denied: &Denied) -> Response<Full<Bytes>> {
    let mut response = error(denied.status(), &denied.to_string());
    if matches!(denied, Denied::Token) {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// What is told to whoever may know no more.
fn health(status: StatusCode) -> Response<Full<Bytes>> {
    text(status, if status.is_success() { "ready\n" } else { "not ready\n" })
}

async fn page(request: Request<Incoming>, query: &Query, admin: &Admin) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match (&*path, request.method()) {
        ("/drain", &Method::POST) => {
            (admin.drain)();
            json_of(StatusCode::ACCEPTED, &json!({"draining": true}))
        }
        ("/drain", _) => not_allowed("POST"),
        ("/log", &Method::PUT) => log(admin, query.get("level")),
        ("/log", _) => not_allowed("PUT"),
        (path, _) if path.starts_with("/registrations/") => {
            let name = decode(path.trim_start_matches("/registrations/"));
            registrations::one(request, &name, admin).await
        }
        _ if !is_read => not_allowed("GET, HEAD"),
        ("/live", _) => text(StatusCode::OK, "ok\n"),
        ("/ready", _) => ready(admin),
        ("/metrics", _) => metrics(admin),
        ("/services", _) => json_of(StatusCode::OK, &reports::services(&admin.directory)),
        ("/registrations", _) => registrations::all(admin),
        ("/why", _) => why::answer(admin, query).await,
        ("/config", _) => {
            let mut settings = config::effective_json(admin.live.load().settings());
            if let Some(report) = admin.policy.report() {
                settings["live_policy"] = json!(report);
            }
            json_of(StatusCode::OK, &settings)
        }
        (path, _) => match path.strip_prefix("/services/") {
            Some(name) => service(admin, &decode(name)).await,
            None => error(StatusCode::NOT_FOUND, &format!("no page {path:?}; there are {PATHS}")),
        },
    }
}

fn ready(admin: &Admin) -> Response<Full<Bytes>> {
    let mut reasons = (admin.unready)();
    reasons.extend(reports::unsynced(&admin.directory));
    if !admin.policy.has_been_read() {
        let problem = admin.policy.report().and_then(|report| report.problem);
        reasons.push(format!("policy: {}", problem.unwrap_or_default()));
    }
    if reasons.is_empty() {
        text(StatusCode::OK, "ready\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", reasons.join("\n")))
    }
}

fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    match TextEncoder::new().encode_to_string(&admin.metrics.registry().gather()) {
        Ok(metrics) => {
            let mut response = text(StatusCode::OK, &metrics);
            let kind = http::HeaderValue::from_static(prometheus::TEXT_FORMAT);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string()),
    }
}

fn log(admin: &Admin, level: Option<&str>) -> Response<Full<Bytes>> {
    match level.map(|level| admin.log.set(level)) {
        Some(Ok(())) => json_of(StatusCode::OK, &json!({"level": level})),
        Some(Err(wrong)) => error(StatusCode::BAD_REQUEST, &wrong.to_string()),
        None => error(StatusCode::BAD_REQUEST, "PUT /log?level=debug"),
    }
}

async fn service(admin: &Admin, name: &str) -> Response<Full<Bytes>> {
    match why::find(admin, name).await {
        Ok(service) => json_of(StatusCode::OK, &reports::service(&admin.directory, &service)),
        Err((status, message)) => error(status, &message),
    }
}

/// JSON, for programs and for `jq`.
pub(super) fn json_of(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    json_text(status, &format!("{value}\n"))
}

/// The same of what is JSON already.
pub(super) fn json_text(status: StatusCode, json: &str) -> Response<Full<Bytes>> {
    let mut response = text(status, json);
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// `{"error": ...}`.
pub(super) fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_of(status, &json!({"error": message}))
}

pub(super) fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    response.headers_mut().insert(ALLOW, http::HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The parameters of a query, decoded. The first of a name counts.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn new(query: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        };
        Self(query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect())
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// All parameters, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Every value of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| &**value)
    }
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_a_page_does_not_take_is_refused_by_name() {
        let checked = |path: &str, query: &str| check(path, &Query::new(query));
        for (path, query) in [
            ("/why", "authority=a&header=a:b&header=c:d&hash_key=x"),
            ("/log", "level=debug"),
            ("/services", ""),
            ("/calls", "x"),
            ("/metrics", "name[]=up"),
            ("/ready", "x"),
            ("/nothing", "x"),
        ] {
            assert_eq!(checked(path, query), Ok(()), "{path}?{query}");
        }
        for path in ["/services", "/services/a", "/drain", "/registrations/a"] {
            let wrong = checked(path, "a=1").unwrap_err();
            assert_eq!(wrong, "unknown parameter \"a\"; allowed: none here", "{path}");
        }
        let wrong = checked("/why", "authority=a&filtr=b").unwrap_err();
        assert!(wrong.starts_with("unknown parameter \"filtr\"; allowed: authority, "), "{wrong}");
    }

    #[test]
    fn parameters_are_decoded_and_empty_ones_are_as_if_absent() {
        let query = Query::new("authority=a%40b&filter=zone+in+%28a,b%29&node=&authority=second&x");
        assert_eq!(query.get("authority"), Some("a@b"));
        assert_eq!(query.get("filter"), Some("zone in (a,b)"));
        assert_eq!(query.get("node"), None);
        assert_eq!(query.get("x"), None);
    }
}
