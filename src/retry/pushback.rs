//! The header `grpc-retry-pushback-ms` (gRFC A6): after which time to try again, or not to.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header, which stands where `grpc-status` does.
pub const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What whoever fails a call says of further attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Not before this time has passed.
    After(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// What is said there. A negative number, or what is no number, asks for no further attempt.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(PUSHBACK)?.to_str().unwrap_or_default();
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let millis = digits.then(|| value.parse::<u32>().unwrap_or(u32::MAX));
        Some(millis.map_or(Self::Never, |ms| Self::After(Duration::from_millis(ms.into()))))
    }

    /// As the value of the header: whole milliseconds, rounded up.
    pub fn to_value(self) -> HeaderValue {
        match self {
            Self::Never => HeaderValue::from_static("-1"),
            Self::After(time) => {
                let millis = time.as_micros().div_ceil(1000);
                HeaderValue::from(u32::try_from(millis).unwrap_or(u32::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_of_milliseconds_asks_for_no_further_attempt() {
        let of =
            |value: &str| Pushback::of(&HeaderMap::from_iter([(PUSHBACK, value.parse().unwrap())]));
        for (value, millis) in [("0", 0), ("250", 250), ("4294967296", u32::MAX.into())] {
            assert_eq!(of(value), Some(Pushback::After(Duration::from_millis(millis))), "{value}");
        }
        for value in ["-1", "-250", "", "1.5", "1s", "+5"] {
            assert_eq!(of(value), Some(Pushback::Never), "{value:?}");
        }
        assert_eq!(Pushback::of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for pushback in [Pushback::Never, Pushback::After(Duration::from_millis(7))] {
            let headers = HeaderMap::from_iter([(PUSHBACK, pushback.to_value())]);
            assert_eq!(Pushback::of(&headers), Some(pushback));
        }
        assert_eq!(Pushback::After(Duration::from_micros(1)).to_value(), "1");
    }
}
