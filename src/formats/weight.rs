//! One rule for weights, whatever a framework wrote.

use serde_json::Value;

use crate::model::Record;

/// Largest weight; anything above counts as this, so that sums cannot overflow.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;

/// Weight in a JSON number or string: rounded, at least 1 unless it is 0, at most [`MAX_WEIGHT`].
/// Absent, negative, NaN, infinite or no number at all: [`Record::DEFAULT_WEIGHT`].
pub(super) fn weight(value: Option<&Value>) -> u32 {
    let number = match value {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(0.0) => 0,
        // The cast saturates and cannot be NaN here.
        Some(number) if number > 0.0 && number.is_finite() => {
            (number.round() as u32).clamp(1, MAX_WEIGHT)
        }
        _ => Record::DEFAULT_WEIGHT,
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
    }
}
