//! One rule for weights, whatever a framework wrote.

use serde_json::Value;

use crate::model::Record;

/// Largest weight; anything above counts as this, so that sums cannot overflow.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;

/// Weight in a JSON number or string: rounded, at least 1 unless it is 0, at most [`MAX_WEIGHT`].
/// Absent, negative, NaN, infinite or no number at all: [`Record::DEFAULT_WEIGHT`].
pub(super) fn weight(value: Option<&Value>) -> u32 {
    number_or(Record::DEFAULT_WEIGHT, value)
}

/// As [`weight`], where whatever is no number means `default`.
pub(super) fn number_or(default: u32, value: Option<&Value>) -> u32 {
    number(value).unwrap_or(default)
}

/// As [`number_or`], where 0 means `default`, too.
pub(super) fn positive_or(default: u32, value: Option<&Value>) -> u32 {
    number(value).filter(|weight| *weight > 0).unwrap_or(default)
}

fn number(value: Option<&Value>) -> Option<u32> {
    let number: f64 = match value? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    match number {
        0.0 => Some(0),
        // The cast saturates and cannot be NaN here.
        number if number > 0.0 && number.is_finite() => {
            Some((number.round() as u32).clamp(1, MAX_WEIGHT))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_weight_becomes_a_number_from_0_to_a_million() {
        for (written, read) in [
            (json!(3), 3),
            (json!("3"), 3),
            (json!(" 7 "), 7),
            (json!(0), 0),
            (json!("0"), 0),
            (json!(0.2), 1),
            (json!(2.6), 3),
            (json!(1e300), MAX_WEIGHT),
            (json!(9_223_372_036_854_775_807_i64), MAX_WEIGHT),
            (json!("1e9"), MAX_WEIGHT),
            (json!(-1), 100),
            (json!("-0.5"), 100),
            (json!("NaN"), 100),
            (json!("inf"), 100),
            (json!("abc"), 100),
            (json!(true), 100),
            (json!([1]), 100),
        ] {
            assert_eq!(weight(Some(&written)), read, "{written}");
        }
        assert_eq!(weight(None), 100);
        assert_eq!(positive_or(10, Some(&json!(0))), 10);
        assert_eq!(positive_or(10, Some(&json!("x"))), 10);
        assert_eq!(positive_or(10, Some(&json!("7"))), 7);
    }
}
