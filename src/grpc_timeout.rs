//! The header `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests").

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// The header.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most that eight digits can say.
const MOST: u64 = 99_999_999;

/// Reads a timeout. What is not one is as if it were absent, as gRPC servers have it.
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes a timeout in the finest unit that fits, rounded down: never more than is left.
///
/// The value is marked as sensitive, which says that it must not be indexed (RFC 7541 section 6.2.3). It
/// is another one with each call: indexed, it would push what repeats out of the peer's table and
/// ours, and h2 would compare it with all that are still there.
pub fn format(left: Duration) -> HeaderValue {
    let (number, unit) = finest(left);
    let mut left = number;
    let mut text = [unit; 9];
    let mut start = text.len() - 1;
    while left > 0 || start == text.len() - 1 {
        start -= 1;
        text[start] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    // Digits and a letter are a header value; the fallback cannot be reached.
    let mut value =
        HeaderValue::from_bytes(&text[start..]).unwrap_or_else(|_| HeaderValue::from_static("0n"));
    value.set_sensitive(true);
    value
}

/// At most eight digits, and their unit.
fn finest(left: Duration) -> (u32, u8) {
    let (seconds, nanos) = (left.as_secs(), u64::from(left.subsec_nanos()));
    // Each unit is tried only where all of `left` in it fits into 64 bits.
    let all = |a_second: u64| {
        seconds.checked_mul(a_second).map(|whole| whole + nanos / (1_000_000_000 / a_second))
    };
    [(1_000_000_000, b'n'), (1_000_000, b'u'), (1_000, b'm'), (1, b'S')]
        .into_iter()
        .find_map(|(a_second, unit)| match all(a_second) {
            Some(number) if number <= MOST => Some((number as u32, unit)),
            _ => None,
        })
        .unwrap_or_else(|| ((seconds / 3600).min(MOST) as u32, b'H'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("4m", Duration::from_millis(4)),
            ("5u", Duration::from_micros(5)),
            ("6n", Duration::from_nanos(6)),
            ("00000000n", Duration::ZERO),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_timeout_is_as_if_absent() {
        for text in ["", "S", "1", "123456789m", "-1S", "1.5S", "1s", " 1S", "1S "] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_never_more_than_what_is_left_and_nearly_as_much() {
        for left in [0, 1, 99_999_999, 100_000_001, 7_654_321_987, u64::MAX / 2] {
            let left = Duration::from_nanos(left);
            let written = parse(format(left).as_bytes()).unwrap();
            assert!(written <= left && written.as_secs_f64() >= left.as_secs_f64() * 0.999_99);
        }
        assert!(format(Duration::from_secs(1)).is_sensitive());
        let longest = format(Duration::from_secs(u64::MAX));
        assert_eq!(longest.as_bytes(), b"99999999H");
    }
}
