//! The output of the demonstration.

use std::io::IsTerminal;
use std::time::Duration;

/// A heading, in bold on a terminal.
pub fn heading(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m{text}\x1b[0m");
    } else {
        println!("\n{text}");
    }
}

/// A line below a heading.
pub fn line(text: &str) {
    println!("  {text}");
}

/// A bar of `value` against `whole`, with its numbers.
pub fn bar(label: &str, value: u64, whole: u64) {
    let width = 32;
    let filled = usize::try_from(value * width / whole.max(1)).unwrap_or(0);
    println!("  {label:<26} {:<32} {:>9}", "█".repeat(filled), bytes(value));
}

/// "148.2 MB"
pub fn bytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// "1.84 s", or "0.93 ms" where that is shorter.
pub fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.1 { format!("{:.2} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// 6213 as "6,213".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
