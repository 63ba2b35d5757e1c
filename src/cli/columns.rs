//! Aligned columns for people.

use crate::telemetry::plain;

/// `rows` below `heads`, two spaces apart; numbers are aligned to the right. A column without any
/// content is left out. Cells may hold what strangers wrote: it is shown by [`plain`].
pub(super) fn columns<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| plain(cell).into_owned())).collect();
    let column = |at: usize| rows.iter().map(move |row| &*row[at]);
    let shown: Vec<usize> = (0..N).filter(|at| column(*at).any(|cell| !cell.is_empty())).collect();
    let width = |at: usize| {
        column(at).chain([heads[at]]).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = shown.iter().map(|at| width(*at)).collect();
    let right: Vec<bool> = shown.iter().map(|at| column(*at).all(is_number)).collect();
    let heads = heads.map(str::to_owned);
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(&rows) {
        let mut line = String::new();
        for (place, at) in shown.iter().enumerate() {
            let (cell, width) = (&row[*at], widths[place]);
            let cell = if right[place] {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A cell that a column of numbers may have; an empty one is no contradiction.
fn is_number(cell: &str) -> bool {
    cell.strip_suffix('%').unwrap_or(cell).chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_makes_no_row_and_moves_no_cursor() {
        let rows = [["a\nfake  row".to_owned(), "\u{1b}[2J".to_owned()]];
        assert_eq!(columns(["A", "B"], &rows), "A             B\na\\nfake  row  \\u{1b}[2J\n");
    }

    #[test]
    fn numbers_stand_right_text_left_and_empty_columns_are_left_out() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        let rows = [row(["a", "1", "", "33.3%"]), row(["bücher", "10", "", "6.7%"])];
        assert_eq!(
            columns(["NAME", "N", "NONE", "SHARE"], &rows),
            "NAME     N  SHARE\na        1  33.3%\nbücher  10   6.7%\n"
        );
    }
}
