//! Prints results to standard output: text for people, JSON for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use console::Term;
use serde::Serialize;

use super::args::Output;
use crate::image::store::ImageRecord;
use crate::text;
pub use crate::units::bytes;

/// Prints `value` as JSON, or as the text that `text` makes of it.
pub fn show<T: Serialize>(output: Output, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let mut shown = match output {
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Text => text(value),
    };
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    std::io::stdout().lock().write_all(shown.as_bytes()).or_else(unless_closed)
}

/// Lines about an image that is a part of its manifest's; none of others.
pub fn chosen(record: &ImageRecord) -> String {
    match &record.choice {
        all if all.is_all() => String::new(),
        choice => {
            format!("  choice     {}\n  taken      {}\n", record.key(), text::one_line(&choice.to_string()))
        }
    }
}

/// A failure to write to standard output; none if its reader has gone, as `head` does.
pub fn unless_closed(error: std::io::Error) -> anyhow::Result<()> {
    if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) }
}

/// Columns of the terminal that standard output is; `None` if it is none.
pub fn width() -> Option<usize> {
    columns(&Term::stdout())
}

/// The same of any stream.
pub fn columns(stream: &Term) -> Option<usize> {
    let size = stream.is_term().then(|| stream.size_checked()).flatten();
    size.map(|(_, columns)| columns.into())
}

/// A number and what it counts, a word that takes an `s`.
pub fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Breaks each line of a text between words, keeping the line's indentation.
pub fn wrapped_lines(text: &str, width: usize) -> String {
    let wrap = |line: &str| {
        let (indent, words) = line.split_at(line.len() - line.trim_start_matches(' ').len());
        let line = wrapped(words, width.saturating_sub(indent.len()), "");
        line.split('\n').map(|line| format!("{indent}{line}\n")).collect::<String>()
    };
    text.lines().map(wrap).collect()
}

/// Breaks a text between words, and begins further lines with `indent`. A word that is longer than a line stays whole,
/// because it is a path or a name that somebody will copy.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let long = console::measure_text_width(word);
        if column > 0 && column + 1 + long > width {
            out.push('\n');
            out.push_str(indent);
            column = indent.len();
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += long;
    }
    out
}

/// Aligns rows in columns; the first row is the heading. Columns in `right` are right-aligned. Where the rows are wider
/// than `width`, the first column has lines of its own, because it has names, which are long and must stay whole.
pub fn table(rows: &[Vec<String>], right: &[usize], width: Option<usize>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let between = 2 * columns.saturating_sub(1);
    let split = width.is_some_and(|width| widths.iter().sum::<usize>() + between > width);
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            if c == 0 && split {
                line.push_str(cell);
                line.push_str("\n  ");
                continue;
            }
            let width = widths[c];
            // Writing to a String cannot fail.
            let _ = if right.contains(&c) {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["NAME".into(), "SIZE".into()], vec!["a".into(), "1 B".into()]];
        assert_eq!(table(&rows, &[1], None), "NAME  SIZE\na      1 B\n");
        assert_eq!(table(&rows, &[1], Some(10)), "NAME  SIZE\na      1 B\n");
        assert_eq!(table(&rows, &[1], Some(9)), "NAME\n  SIZE\na\n   1 B\n");
    }

    #[test]
    fn lines_break_between_words_only() {
        assert_eq!(wrapped("one two three", 7, "  "), "one two\n  three");
        assert_eq!(wrapped("one registry.example/long two", 8, "  "), "one\n  registry.example/long\n  two");
        assert_eq!(wrapped("", 8, "  "), "");
        assert_eq!(wrapped_lines("one two\n  three four\n", 7), "one two\n  three\n  four\n");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!((count(0, "image"), count(1, "image")), ("0 images".into(), "1 image".into()));
    }
}
