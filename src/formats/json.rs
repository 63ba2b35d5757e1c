//! JSON as Go programs read it: field names without regard to case, `null` as good as absent.

use serde_json::{Map, Value};

use super::RejectReason;

/// The value as a JSON object.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, RejectReason> {
    if text.is_empty() {
        return Err(RejectReason::Empty);
    }
    serde_json::from_str(text).map_err(|error| RejectReason::Json(error.to_string()))
}

/// Field `name`: the exact spelling if there is one, else one that differs in case.
pub(super) fn raw<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| {
        object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    })
}

/// Field `name`, unless it is `null`.
pub(super) fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    raw(object, name).filter(|value| !value.is_null())
}

/// Field `name` as text; empty when absent or of another type.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    field(object, name).and_then(Value::as_str).unwrap_or_default()
}

/// Field `name` if it is an object: labels, of which there may be none.
pub(super) fn labels<'a>(
    object: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> + use<'a> {
    field(object, name).and_then(Value::as_object).into_iter()
}

/// A string, number or boolean as text; lists, objects and `null` have none.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
