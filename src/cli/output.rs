//! Prints results to standard output: text for people, JSON for programs.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;

use super::args::Output;
use crate::text::Escaping;

/// Prints `value` as JSON, or as the text that `text` makes of it.
pub fn show<T: Serialize>(output: Output, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let mut shown = match output {
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Text => text(value),
    };
    if !shown.ends_with('\n') {
        shown.push('\n');
    }
    match std::io::stdout().lock().write_all(shown.as_bytes()) {
        // `composefs-csi ls | head` closes the pipe early, and is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints an error with its causes to standard error. If that is closed, the message is lost.
pub fn print_error(error: &anyhow::Error) {
    // One line, whatever a name or a registry has put into the message.
    let mut line = Escaping(String::new());
    let _ = write!(line, "{error:#}");
    let _ = writeln!(std::io::stderr().lock(), "composefs-csi: {}", line.0);
}

/// Bytes with a decimal unit, as registries and disks use.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Aligns rows in columns; the first row is the heading. Columns in `right` are right-aligned.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
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
    fn units_change_where_the_rounded_figure_would_not_fit() {
        for (count, shown) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB")]
        {
            assert_eq!(bytes(count), shown);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["NAME".into(), "SIZE".into()], vec!["a".into(), "1 B".into()]];
        assert_eq!(table(&rows, &[1]), "NAME  SIZE\na      1 B\n");
    }
}
