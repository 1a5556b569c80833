//! The caller's deadline.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// The time until the call's deadline, counted from its arrival; `None` if the caller sent no deadline.
///
/// gRPC over HTTP/2, "Requests": `grpc-timeout` is at most eight digits and a unit.
pub(crate) fn remaining(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Eight digits, so that no product below overflows.
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// How long to work before answering: `usual`, or less if the caller waits less. A quarter of the caller's time, at most
/// five seconds, is left for the answer to arrive.
pub(crate) fn time_to_answer(metadata: &MetadataMap, usual: Duration) -> Duration {
    remaining(metadata).map_or(usual, |all| {
        let margin = (all / 4).min(Duration::from_secs(5));
        usual.min(all.saturating_sub(margin))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(timeout: &'static str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().unwrap());
        metadata
    }

    #[test]
    fn units_and_nonsense() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("119999m", Some(Duration::from_millis(119_999))),
            ("5S", Some(Duration::from_secs(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1x", None),
        ] {
            assert_eq!(remaining(&with(text)), expected, "{text}");
        }
        assert_eq!(remaining(&MetadataMap::new()), None);
    }

    #[test]
    fn the_answer_comes_before_the_deadline() {
        let usual = Duration::from_secs(110);
        assert_eq!(time_to_answer(&MetadataMap::new(), usual), usual);
        assert_eq!(time_to_answer(&with("2M"), usual), usual);
        assert_eq!(time_to_answer(&with("1M"), usual), Duration::from_secs(55));
        assert_eq!(time_to_answer(&with("2S"), usual), Duration::from_millis(1500));
    }
}
