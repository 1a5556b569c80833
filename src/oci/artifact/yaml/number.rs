//! Numbers: Go reads those of JSON as `float64`, and writes them with as few digits as tell them apart.

use serde_json::Number;

/// As `strconv.FormatFloat(number, 'g', -1, 64)` writes it: with an exponent below 1e-4 and from 1e6 on.
pub(super) fn text(number: &Number) -> String {
    let value = number.as_f64().unwrap_or_default();
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{value}"),
    }
}
