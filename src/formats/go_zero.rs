//! `go-zero`: the plain text `host:port`.
//!
//! Key `<service>/<lease id>`, or `<service>/<configured id>`. A process that lost its lease comes
//! back under a new key while the old one still lives, so one address may have several keys.

use crate::model::{Record, ServiceName};

use super::{EncodeError, Format, Reading, RecordKey, RejectReason, Written, write};

#[derive(Debug)]
pub(super) struct GoZero;

impl Format for GoZero {
    fn name(&self) -> &'static str {
        "go-zero"
    }

    fn decode(&self, key: &RecordKey<'_>, value: &str) -> Result<Reading, RejectReason> {
        if value.is_empty() {
            return Err(RejectReason::Empty);
        }
        let record = Record::new(value.parse()?, self.name());
        Ok(Record { id: key.instance.to_owned(), ..record }.into())
    }

    fn encode(
        &self,
        prefix: &str,
        _service: &ServiceName,
        record: &Record,
        lease: i64,
    ) -> Result<Written, EncodeError> {
        write::bare(self.name(), record)?;
        Ok(Written { key: format!("{prefix}{lease}"), value: record.address.to_string() })
    }
}

/// Whether a value looks like this format: one host, one port, nothing else.
pub(super) fn is_plain(value: &str) -> bool {
    let Some((host, port)) = value.rsplit_once(':') else { return false };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match in_brackets {
        Some(ip) => {
            !ip.is_empty() && ip.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
        }
        None => {
            !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/:@".contains(c))
        }
    };
    host_fits && (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
}
