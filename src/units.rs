//! Amounts of bytes and stretches of time, as people read them.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

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

/// A time in its two largest units, of whole seconds: `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (large, small, of_large) = match seconds {
        0..MINUTE => return format!("{seconds} s"),
        MINUTE..HOUR => ("min", "s", (MINUTE, 1)),
        HOUR..DAY => ("h", "min", (HOUR, MINUTE)),
        _ => ("d", "h", (DAY, HOUR)),
    };
    let (whole, rest) = (seconds / of_large.0, seconds % of_large.0 / of_large.1);
    if rest == 0 { format!("{whole} {large}") } else { format!("{whole} {large} {rest} {small}") }
}

/// The same of an estimate, which is no better than its first figures: whole seconds up to ten, steps of five to a
/// minute, of half a minute to ten, then whole minutes. Rounded up, so that what is left is never nothing.
pub fn about(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().ceil() as u64;
    let step = match seconds {
        0..=10 => 1,
        11..=MINUTE => 5,
        61..=600 => 30,
        _ => MINUTE,
    };
    time(Duration::from_secs(seconds.max(1).div_ceil(step).saturating_mul(step)))
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
    fn times_have_two_units_and_estimates_few_figures() {
        for (seconds, exact, roughly) in [
            (0, "0 s", "1 s"),
            (7, "7 s", "7 s"),
            (42, "42 s", "45 s"),
            (60, "1 min", "1 min"),
            (95, "1 min 35 s", "2 min"),
            (3599, "59 min 59 s", "1 h"),
            (7810, "2 h 10 min", "2 h 11 min"),
            (273_700, "3 d 4 h", "3 d 4 h"),
        ] {
            let duration = Duration::from_secs(seconds);
            assert_eq!((time(duration).as_str(), about(duration).as_str()), (exact, roughly));
        }
        assert_eq!(about(Duration::from_millis(7200)), "8 s");
    }
}
