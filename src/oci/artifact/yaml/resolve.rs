//! Whether a text without quotes would be read as something else: a number, a truth value, a date, nothing.

/// Whether it needs quotes. That some more have them than `yaml.v3` gives them (dates that are none) changes nothing for a
/// reader.
pub(super) fn is_another(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", ".nan", ".NaN",
        ".NAN",
    ];
    // YAML 1.1 had more of them.
    const OLD: [&str; 16] =
        ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    WORDS.contains(&text)
        || OLD.contains(&text)
        || [".inf", ".Inf", ".INF"].contains(&unsigned)
        || is_number(text)
        || is_sexagesimal(unsigned)
        || is_date(text)
}

fn is_number(text: &str) -> bool {
    match text.bytes().next() {
        Some(b'.') => is_float(text),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let plain = text.replace('_', "");
            is_integer(&plain) || is_float(&plain)
        }
        _ => false,
    }
}

/// In the bases that Go tells by their prefix. Those in ten are floating-point numbers as well.
fn is_integer(plain: &str) -> bool {
    // With a sign it has 63 bits.
    let (unsigned, most) = match plain.as_bytes().first() {
        Some(b'-') => (&plain[1..], 1 << 63),
        Some(b'+') => (&plain[1..], i64::MAX.cast_unsigned()),
        _ => (plain, u64::MAX),
    };
    let bases = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
    bases.iter().any(|(prefix, base)| {
        let digits = unsigned.strip_prefix(prefix).filter(|digits| !digits.starts_with('+'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, *base).ok());
        number.is_some_and(|number| number <= most)
    })
}

fn is_float(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_written = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent));
    // What is too large for one stays a text.
    is_written && plain.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `1:30` was ninety in YAML 1.1.
fn is_sexagesimal(unsigned: &str) -> bool {
    let mut groups = unsigned.split(':');
    let first = groups.next().unwrap_or_default();
    let is_first = first.starts_with(|char: char| char.is_ascii_digit())
        && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let rest: Vec<_> = groups.collect();
    let Some((last, middle)) = rest.split_last() else { return false };
    let last = match last.split_once('.') {
        Some((last, fraction)) if fraction.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') => last,
        Some(_) => return false,
        None => last,
    };
    let is_group = |group: &str| match group.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    is_first && is_group(last) && middle.iter().all(|group| is_group(group))
}

/// `2024-1-2`, alone or with a time behind it.
fn is_date(text: &str) -> bool {
    let date = text.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<_> = date.split('-').collect();
    let digits = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    match parts.as_slice() {
        [year, month, day] => year.len() == 4 && digits(year, 4) && digits(month, 2) && digits(day, 2),
        _ => false,
    }
}
