//! The header `grpc-previous-rpc-attempts` (gRFC A6): whether a call is itself a retry.

use http::{HeaderMap, HeaderName};

/// How many attempts were made before this one. Absent on the first.
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Whether whoever calls tries again already. Then it is not done here: where each hop tried again what
/// the hop before tries again, a leaf that fails would get the product of all their attempts.
pub fn is_retry(headers: &HeaderMap) -> bool {
    headers.get(PREVIOUS_ATTEMPTS).is_some_and(|attempts| attempts != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_with_attempts_before_it_is_a_retry() {
        let with =
            |value: &str| HeaderMap::from_iter([(PREVIOUS_ATTEMPTS, value.parse().unwrap())]);
        assert!(is_retry(&with("1")) && is_retry(&with("12")) && is_retry(&with("?")));
        assert!(!is_retry(&with("0")) && !is_retry(&HeaderMap::new()));
    }
}
