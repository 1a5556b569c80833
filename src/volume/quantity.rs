//! Amounts as Kubernetes writes them: `64Mi`, `1.5Gi`, `2e9` (its `resource.Quantity`). Pure.

/// Characters of the longest amount that is read. Longer ones say nothing that a shorter one does not.
const LONGEST: usize = 40;

/// A whole number of bytes; a part of one counts as one, as in Kubernetes. `None` if the text is no amount, is negative, or is
/// more than 64 bits hold.
pub(super) fn bytes(text: &str) -> Option<u64> {
    if text.len() > LONGEST {
        return None;
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    // A second point is no digit.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (times, parts) = factor(unit)?;
    let parts = power(10, fraction.len())?.checked_mul(parts)?;
    let bytes = digits.parse::<u128>().ok()?.checked_mul(times)?.div_ceil(parts);
    u64::try_from(bytes).ok()
}

/// By what a unit multiplies, and by what it divides.
fn factor(unit: &str) -> Option<(u128, u128)> {
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const SMALL: [&str; 4] = ["", "m", "u", "n"];
    for (units, base) in [(DECIMAL, 1000), (BINARY, 1024)] {
        if let Some(at) = units.iter().position(|known| *known == unit) {
            return Some((power(base, at)?, 1));
        }
    }
    if let Some(at) = SMALL.iter().position(|known| *known == unit) {
        return Some((1, power(1000, at)?));
    }
    let exponent: i8 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = power(10, usize::from(exponent.unsigned_abs()))?;
    Some(if exponent < 0 { (1, size) } else { (size, 1) })
}

fn power(base: u128, exponent: usize) -> Option<u128> {
    base.checked_pow(u32::try_from(exponent).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_kubernetes_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("128974848", 128_974_848),
            ("129e6", 129_000_000),
            ("129E6", 129_000_000),
            ("129M", 129_000_000),
            ("123Mi", 128_974_848),
            ("1.5Gi", 1_610_612_736),
            (".5Ki", 512),
            ("5.Ki", 5120),
            ("64k", 64_000),
            ("1E", 1_000_000_000_000_000_000),
            ("2000m", 2),
            ("1m", 1),
            ("15e-1", 2),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for none in [
            "",
            "Mi",
            ".",
            "1.2.3",
            "-1",
            "+1",
            "1 Mi",
            " 1",
            "1mi",
            "1KI",
            "1K",
            "1MiB",
            "1e",
            "1e1000",
            "16Ei",
            "18446744073709551616",
            "1e-200",
            "١",
        ] {
            assert_eq!(bytes(none), None, "{none:?}");
        }
        assert_eq!(bytes(&"1".repeat(1000)), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,50}", near in "[0-9.]{0,30}[eEkKMGTPmun]{0,2}i?-?[0-9]{0,4}") {
            let _ = (bytes(&text), bytes(&near));
        }

        #[test]
        fn whole_numbers_are_themselves(number in any::<u64>()) {
            prop_assert_eq!(bytes(&number.to_string()), Some(number));
        }
    }
}
