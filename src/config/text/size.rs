//! Numbers of bytes.

use crate::config::value::Text;

/// Bytes, from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Size<const MIN: u64, const MAX: u64>(pub(in crate::config) u64);

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl<const MIN: u64, const MAX: u64> Text for Size<MIN, MAX> {
    fn allowed() -> String {
        let (min, max) = (written(MIN), written(MAX));
        format!("a size such as \"64KiB\" or \"512MiB\", from \"{min}\" to \"{max}\"")
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match parse(text) {
            Some(bytes) if (MIN..=MAX).contains(&bytes) => Ok(Self(bytes)),
            Some(_) => Self::refuse(&format!("{text:?} is out of range")),
            None => Self::refuse(&format!("{text:?} is not a size")),
        }
    }

    fn to_text(&self) -> String {
        written(self.0)
    }
}

fn parse(text: &str) -> Option<u64> {
    let (number, shift) =
        UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))?;
    number.trim_end().parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn written(bytes: u64) -> String {
    let whole = |(_, shift): &&(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    let (unit, shift) = UNITS.iter().find(whole).unwrap_or(&("B", 0));
    format!("{}{unit}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Any = Size<0, { 1 << 40 }>;

    #[test]
    fn a_size_is_written_in_the_largest_unit_that_it_is_a_multiple_of() {
        for (text, bytes) in [
            ("64KiB", 64 << 10),
            ("512MiB", 512 << 20),
            ("2GiB", 2 << 30),
            ("1025B", 1025),
            ("0B", 0),
        ] {
            assert_eq!(Any::from_text(text), Ok(Size(bytes)));
            assert_eq!(Any::to_text(&Size(bytes)), text);
        }
        assert_eq!(Any::from_text("1024 B").unwrap().to_text(), "1KiB");
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_is_allowed() {
        for bad in ["", "12", "KiB", "-1KiB", "1.5MiB", "64kb", "99999999999999GiB"] {
            let wrong = Any::from_text(bad).unwrap_err();
            assert!(wrong.contains("is not a size; allowed: a size such as"), "{wrong}");
        }
        let wrong = Size::<1024, 2048>::from_text("1GiB").unwrap_err();
        assert!(wrong.ends_with("from \"1KiB\" to \"2KiB\""), "{wrong}");
    }
}
