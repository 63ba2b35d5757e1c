//! gRPC status codes and their names.

use http::{HeaderMap, HeaderName};

/// A gRPC status code, 0 to 16 (grpc.io/docs/guides/status-codes); anything else is UNKNOWN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcStatus(u8);

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl GrpcStatus {
    /// The header or trailer. Looked up by this it is not parsed each time.
    pub const HEADER: HeaderName = HeaderName::from_static("grpc-status");
    /// The header or trailer that says more, for people.
    pub const MESSAGE_HEADER: HeaderName = HeaderName::from_static("grpc-message");
    /// Number of codes.
    pub const COUNT: usize = NAMES.len();
    /// The caller gave up.
    pub const CANCELLED: Self = Self(1);
    /// No status was seen.
    pub const UNKNOWN: Self = Self(2);
    /// Whoever was asked does not have the method, or the service.
    pub const UNIMPLEMENTED: Self = Self(12);

    /// From a number.
    pub const fn new(code: u8) -> Self {
        if (code as usize) < NAMES.len() { Self(code) } else { Self::UNKNOWN }
    }

    /// From headers or trailers; none where they do not have it.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(Self::HEADER).map(|status| Self::parse(status.as_bytes()))
    }

    /// From the value of a `grpc-status` header.
    pub fn parse(value: &[u8]) -> Self {
        let code = match value {
            [a @ b'0'..=b'9'] => a - b'0',
            [b'1', b @ b'0'..=b'9'] => 10 + b - b'0',
            _ => return Self::UNKNOWN,
        };
        Self::new(code)
    }

    /// From its name, such as `UNAVAILABLE` or `unavailable`.
    pub fn named(name: &str) -> Option<Self> {
        let code = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        u8::try_from(code).ok().map(Self)
    }

    /// All names, in the order of the numbers.
    pub const fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// The number, 0 to 16.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Upper-case name, as in the metric label.
    pub const fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_found_by_its_name() {
        assert_eq!(GrpcStatus::named("unavailable").map(GrpcStatus::code), Some(14));
        assert_eq!(GrpcStatus::named("DATA_LOSS").map(GrpcStatus::code), Some(15));
        assert_eq!(GrpcStatus::named("data loss"), None);
    }

    #[test]
    fn a_status_is_read_from_its_digits_and_anything_else_is_unknown() {
        assert_eq!(GrpcStatus::parse(b"0").name(), "OK");
        assert_eq!(GrpcStatus::parse(b"16").name(), "UNAUTHENTICATED");
        for odd in [&b"17"[..], b"", b"00", b"-1", b"1x", b"100"] {
            assert_eq!(GrpcStatus::parse(odd), GrpcStatus::UNKNOWN);
        }
    }
}
