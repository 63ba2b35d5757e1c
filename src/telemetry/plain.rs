//! Text that comes from elsewhere, as it may stand in a line of a terminal or a log.
//!
//! Keys and values of a registry are written by many. What would move the cursor, end the line, or turn
//! the direction of the text is written out, as Rust would write it in a literal.

use std::borrow::Cow;

/// One line of it.
pub fn plain(text: &str) -> Cow<'_, str> {
    written_out(text, |_| false)
}

/// The same where lines and columns are ours.
pub fn plain_lines(text: &str) -> Cow<'_, str> {
    written_out(text, |c| c == '\n' || c == '\t')
}

fn written_out(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_meant = |c: char| !is_active(c) || stays(c);
    if text.chars().all(is_meant) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match is_meant(c) {
            true => written.push(c),
            false => written.extend(c.escape_default()),
        }
    }
    Cow::Owned(written)
}

/// Control characters, and those that embed or override a direction (Unicode TR 9 section 2).
fn is_active(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_is_written_out() {
        assert_eq!(plain("bücher\u{1b}[2J\n\u{9b}"), "bücher\\u{1b}[2J\\n\\u{9b}");
        assert_eq!(plain("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
        assert_eq!(plain_lines("a\tb\nc\r"), "a\tb\nc\\r");
    }
}
