//! Texts that are told of a call.

use std::borrow::Cow;

/// At most so many bytes of a text, which may be as long as a caller likes; one that is cut says so.
pub fn bounded(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(bounded("orders", 6), "orders");
        assert_eq!(bounded("ordersx", 6), "orders…");
        assert_eq!(bounded("ääää", 3), "ä…");
    }
}
