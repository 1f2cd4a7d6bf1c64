//! A plain table in columns.

use std::fmt::Write;

/// Lines up the columns; the last one is not padded. `None` instead of cells is an empty line.
pub fn lay_out<const N: usize>(rows: &[Option<[String; N]>]) -> String {
    let mut widths = [0; N];
    for cells in rows.iter().flatten() {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().flatten().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let row = |a: &str, b: &str| Some([a.to_owned(), b.to_owned()]);
        let text = lay_out(&[row("a", "b"), None, row("long", ""), row("ä", "c")]);
        assert_eq!(text, "a     b\n\nlong\nä     c\n");
    }
}
