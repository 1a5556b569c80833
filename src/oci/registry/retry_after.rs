//! Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date. Pure: the caller has the clock.

use std::time::{Duration, SystemTime};

/// The longest wait that is honoured.
const LONGEST: Duration = Duration::from_secs(3600);

/// The wait that a server asks for, at most an hour; `None` for none, for one that is over, and for a value that is
/// neither of the two. `date` is the response's `Date`, by which the server's clock is compared with its own; without it
/// `now` serves.
pub(super) fn wait(value: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let asked = match value.parse::<f64>() {
        // Some servers write fractions. A sooner request would count as well.
        Ok(seconds) if seconds > 0.0 => Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64()).ceil()),
        Ok(_) => return None,
        Err(_) => {
            let until = httpdate::parse_http_date(value).ok()?;
            let began = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
            until.duration_since(began).ok()?
        }
    };
    Some(asked.min(LONGEST)).filter(|asked| !asked.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: &str, date: Option<&str>) -> Option<u64> {
        // 1 January 2026, 12:00:00.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_268_800);
        wait(value, date, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates() {
        for (value, expected) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("1.5", Some(2)),
            ("86400", Some(3600)),
            ("99999999999999999999", Some(3600)),
            ("inf", Some(3600)),
            ("0", None),
            ("-5", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
            ("Thu, 01 Jan 2026 12:00:25 GMT", Some(25)),
            ("Thursday, 01-Jan-26 12:00:25 GMT", Some(25)),
            ("Thu Jan  1 12:00:25 2026", Some(25)),
            ("Thu, 01 Jan 2026 18:00:00 GMT", Some(3600)),
            ("Thu, 01 Jan 2026 11:59:59 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("Thu, 32 Jan 2026 12:00:25 GMT", None),
        ] {
            assert_eq!(seconds(value, None), expected, "{value:?}");
        }
    }

    #[test]
    fn the_servers_own_clock_counts() {
        let until = "Thu, 01 Jan 2026 15:00:09 GMT";
        assert_eq!(seconds(until, Some("Thu, 01 Jan 2026 15:00:00 GMT")), Some(9));
        assert_eq!(seconds(until, Some("nonsense")), Some(3600));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(value in ".{0,40}") {
            let _ = seconds(&value, Some(&value));
        }
    }
}
