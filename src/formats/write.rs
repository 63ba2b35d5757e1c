//! What formats write, and what they share in doing so: JSON as Go spells it, metadata, refusals.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::Record;

/// A key and its value, ready to be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Why a record cannot be written in a format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The format is read, never written.
    #[error("format {0} is only read")]
    ReadOnly(&'static str),
    /// The format has no way to say this, or its readers would break over it.
    #[error("format {format} cannot hold {what}")]
    Cannot {
        /// Name of the format.
        format: &'static str,
        /// What it cannot hold, such as `an IPv6 address`.
        what: String,
    },
}

/// Keys of [`labels`] that have a field in [`Record`].
const FIELDS: [&str; 3] = ["weight", "version", "zone"];

/// JSON byte for byte as Go's `encoding/json`: no spaces, and `& < >` escaped.
pub(super) fn go_json(value: &impl Serialize) -> String {
    // Text, numbers and maps of text: none of them can fail.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of strings JSON has none of these.
        match c {
            '&' => escaped.push_str("\\u0026"),
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// All that a record says beside its address and id, as text by key: its metadata with `weight`,
/// `version` and `zone`, each unless it is the default. What [`super::labels::take`] reads back.
pub(super) fn labels(
    format: &'static str,
    record: &Record,
) -> Result<BTreeMap<String, String>, EncodeError> {
    let is_field = |key: &&String| FIELDS.iter().any(|field| key.eq_ignore_ascii_case(field));
    if let Some(key) = record.metadata.keys().find(is_field) {
        let key = key.to_ascii_lowercase();
        return Err(cannot(format, format!("metadata named {key:?}, for which there is a key")));
    }
    let mut labels = record.metadata.clone();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            labels.insert(key.to_owned(), value.to_owned());
        }
    };
    add("version", &record.version);
    add("zone", &record.zone);
    if record.weight != Record::DEFAULT_WEIGHT {
        add("weight", &record.weight.to_string());
    }
    Ok(labels)
}

/// Refuses what a format without metadata cannot say, and without which calls would go where they
/// must not. Version, zone and other metadata are left out: nobody who reads the format knows them.
pub(super) fn bare(format: &'static str, record: &Record) -> Result<(), EncodeError> {
    if record.metadata.get("state").is_some_and(|state| state == "forbidden") {
        return Err(cannot(format, "metadata state=forbidden"));
    }
    positive_weight(format, record)?;
    plaintext(format, record)
}

/// Refuses weight 0 in a format whose readers take it for the default.
pub(super) fn positive_weight(format: &'static str, record: &Record) -> Result<(), EncodeError> {
    if record.weight == 0 { Err(cannot(format, "weight 0")) } else { Ok(()) }
}

/// Refuses an endpoint that speaks TLS in a format that has no word for it.
pub(super) fn plaintext(format: &'static str, record: &Record) -> Result<(), EncodeError> {
    if record.tls { Err(cannot(format, "an endpoint that speaks TLS")) } else { Ok(()) }
}

/// Refuses an IPv6 literal, which readers that split at `:` misread.
pub(super) fn no_ipv6(format: &'static str, record: &Record) -> Result<(), EncodeError> {
    match record.address.socket() {
        Some(socket) if socket.is_ipv6() => Err(cannot(format, "an IPv6 address")),
        _ => Ok(()),
    }
}

/// `text` as the last segment of a key. `what` names it in the refusal.
pub(super) fn segment<'a>(
    format: &'static str,
    what: &str,
    text: &'a str,
) -> Result<&'a str, EncodeError> {
    if text.is_empty() || text.contains('/') {
        return Err(cannot(format, format!("{what} {text:?}: it must be one segment of a key")));
    }
    Ok(text)
}

/// The refusal itself.
pub(super) fn cannot(format: &'static str, what: impl Into<String>) -> EncodeError {
    EncodeError::Cannot { format, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_as_go_does() {
        let text = "a&b<c>\"\\\n\u{2028}\u{2029}ü\u{1}";
        assert_eq!(
            go_json(&BTreeMap::from([("k", text)])),
            "{\"k\":\"a\\u0026b\\u003cc\\u003e\\\"\\\\\\n\\u2028\\u2029ü\\u0001\"}"
        );
    }

    #[test]
    fn labels_hold_what_is_not_the_default() {
        let mut record = Record::new("10.0.0.1:80".parse().unwrap(), "x");
        assert!(labels("x", &record).unwrap().is_empty());
        record.weight = 3;
        record.zone = "a".to_owned();
        record.metadata.insert("gpu".to_owned(), "true".to_owned());
        let labels = labels("x", &record).unwrap();
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["gpu=true", "weight=3", "zone=a"]);
    }

    #[test]
    fn metadata_that_would_be_read_as_a_field_is_refused() {
        let mut record = Record::new("10.0.0.1:80".parse().unwrap(), "x");
        record.metadata.insert("Version".to_owned(), "v2".to_owned());
        let error = labels("x", &record).unwrap_err().to_string();
        assert_eq!(
            error,
            "format x cannot hold metadata named \"version\", for which there is a key"
        );
    }
}
