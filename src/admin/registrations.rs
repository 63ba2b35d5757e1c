//! Registrations: as JSON, and what operators may let them say.

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use serde_json::{Map, Value, json};

use super::{
    Admin,
    routes::{error, json_of, not_allowed},
};
use crate::{
    config::Register,
    register::{Change, ChangeError, Changed, Loss, Report},
};

/// Longest body that is read.
const MAX_BODY: usize = 64 * 1024;
/// What a change may hold.
const ALLOWED: &str = "a JSON object with any of: weight (0 to 1000000), version, zone (texts), \
                       metadata (an object of strings, numbers and booleans, which replaces the \
                       one before)";

/// `GET /registrations`.
pub(super) fn all(admin: &Admin) -> Response<Full<Bytes>> {
    let reports: Vec<Value> = admin.registrations.reports().iter().map(report).collect();
    json_of(StatusCode::OK, &json!({"registrations": reports}))
}

/// `/registrations/NAME`.
pub(super) async fn one(
    request: Request<Incoming>,
    name: &str,
    admin: &Admin,
) -> Response<Full<Bytes>> {
    match *request.method() {
        Method::PUT => change(request, name, admin).await,
        Method::GET | Method::HEAD => {
            let reports = admin.registrations.reports();
            match reports.iter().find(|report| *report.name == *name) {
                Some(found) => json_of(StatusCode::OK, &report(found)),
                None => {
                    let names = reports.iter().map(|report| report.name.to_string()).collect();
                    let unknown = ChangeError::Unknown { name: name.to_owned(), names };
                    error(StatusCode::NOT_FOUND, &unknown.to_string())
                }
            }
        }
        _ => not_allowed("GET, HEAD, PUT"),
    }
}

async fn change(request: Request<Incoming>, name: &str, admin: &Admin) -> Response<Full<Bytes>> {
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(problem) => return error(StatusCode::BAD_REQUEST, &format!("the body: {problem}")),
    };
    let change = match parse(&body) {
        Ok(change) => change,
        Err(wrong) => {
            return error(StatusCode::BAD_REQUEST, &format!("{wrong}; allowed: {ALLOWED}"));
        }
    };
    match admin.registrations.change(name, change).await {
        Ok(Changed::Now(now)) => json_of(StatusCode::OK, &report(&now)),
        Ok(Changed::Later(now)) => json_of(StatusCode::ACCEPTED, &report(&now)),
        Err(problem) => {
            let status = match problem {
                ChangeError::Unknown { .. } => StatusCode::NOT_FOUND,
                ChangeError::Cannot(_) => StatusCode::BAD_REQUEST,
                ChangeError::Late(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, &problem.to_string())
        }
    }
}

fn parse(body: &[u8]) -> Result<Change, String> {
    let object: Map<String, Value> =
        serde_json::from_slice(body).map_err(|wrong| format!("not a JSON object: {wrong}"))?;
    let mut change = Change::default();
    for (key, value) in object {
        let wrong = || format!("{key}: found {value}");
        match &*key {
            "weight" => {
                let weight = value.as_u64().and_then(|weight| u32::try_from(weight).ok());
                let weight = weight.filter(|weight| *weight <= Register::MAX_WEIGHT);
                change.weight = Some(weight.ok_or_else(wrong)?);
            }
            "version" => change.version = Some(plain(&value).ok_or_else(wrong)?),
            "zone" => change.zone = Some(plain(&value).ok_or_else(wrong)?),
            "metadata" => {
                let entries = value.as_object().ok_or_else(wrong)?.iter();
                let entries = entries.map(|(key, value)| match value {
                    Value::Number(number) => Ok((key.clone(), number.to_string())),
                    Value::Bool(flag) => Ok((key.clone(), flag.to_string())),
                    value => match value.as_str() {
                        Some(text) => Ok((key.clone(), text.to_owned())),
                        None => Err(format!("metadata.{key}: found {value}")),
                    },
                });
                change.metadata = Some(entries.collect::<Result<_, _>>()?);
            }
            _ => return Err(format!("unknown key {key:?}")),
        }
    }
    if change == Change::default() {
        return Err("nothing to change".to_owned());
    }
    Ok(change)
}

fn plain(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.contains(char::is_control)).map(str::to_owned)
}

fn report(report: &Report) -> Value {
    let seconds = |time: std::time::Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let losses = Loss::ALL.iter().zip(report.losses);
    let losses: Map<String, Value> =
        losses.map(|(loss, count)| (loss.as_str().to_owned(), count.into())).collect();
    let (last_error, last_error_age) = match &report.last_error {
        Some((error, age)) => (Some(error), Some(seconds(*age))),
        None => (None, None),
    };
    json!({
        "name": &*report.name,
        "service": report.service,
        "address": report.address,
        "source": &*report.source,
        "format": report.format,
        "state": report.state.as_str(),
        "healthy": report.healthy,
        "key": report.key,
        "lease": report.lease.map(|lease| lease.to_string()),
        "lease_left_seconds": report.lease_left.map(seconds),
        "confirmed_age_seconds": report.age.map(seconds),
        "problem": report.problem,
        "last_error": last_error,
        "last_error_age_seconds": last_error_age,
        "weight": report.details.weight,
        "version": report.details.version,
        "zone": report.details.zone,
        "metadata": report.details.metadata,
        "writes": report.writes,
        "failures": report.failures,
        "losses": losses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_holds_any_of_four_keys() {
        let change = parse(br#"{"weight":0,"metadata":{"a":"x","b":1,"c":true}}"#).unwrap();
        assert_eq!((change.weight, change.version, change.zone), (Some(0), None, None));
        let metadata: Vec<_> = change.metadata.unwrap().into_iter().collect();
        assert_eq!(
            metadata,
            [("a", "x"), ("b", "1"), ("c", "true")].map(|(k, v)| (k.into(), v.into()))
        );
        assert_eq!(parse(br#"{"version":""}"#).unwrap().version.as_deref(), Some(""));
    }

    #[test]
    fn what_is_not_allowed_is_named() {
        for (body, expected) in [
            ("", "not a JSON object"),
            ("[1]", "not a JSON object"),
            ("{}", "nothing to change"),
            (r#"{"wait":1}"#, "unknown key \"wait\""),
            (r#"{"weight":-1}"#, "weight: found -1"),
            (r#"{"weight":1000001}"#, "weight: found 1000001"),
            (r#"{"weight":"5"}"#, "weight: found \"5\""),
            (r#"{"zone":null}"#, "zone: found null"),
            (r#"{"version":"a\u0000"}"#, "version: found"),
            (r#"{"metadata":[]}"#, "metadata: found []"),
            (r#"{"metadata":{"a":[1]}}"#, "metadata.a: found [1]"),
        ] {
            let wrong = parse(body.as_bytes()).unwrap_err();
            assert!(wrong.starts_with(expected), "{body}: {wrong}");
        }
    }
}
