//! The moving average by a clock that the tests turn.

use proptest::prelude::*;

use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A meter that has had `rate` bytes in each second for so long, ten times a second.
fn even(rate: u64, tenths: u64) -> Meter {
    let mut meter = Meter::default();
    (0..tenths).for_each(|n| meter.add(Duration::from_millis(100 * n), rate / 10));
    meter
}

#[test]
fn an_even_stream_has_its_rate_and_after_some_seconds_an_end() {
    let meter = even(1_000_000, 5);
    assert_eq!(meter.pace(seconds(0.5), Some(1)), Pace::default(), "too early to say");
    let meter = even(1_000_000, 31);
    let pace = meter.pace(seconds(3.0), Some(30_000_000));
    assert!((950_000..1_100_000).contains(&pace.rate.unwrap()) && pace.left.is_none(), "{pace:?}");
    let meter = even(1_000_000, 201);
    let pace = meter.pace(seconds(20.0), Some(30_000_000));
    assert!((950_000..1_050_000).contains(&pace.rate.unwrap()), "{pace:?}");
    assert!((28.0..32.0).contains(&pace.left.unwrap().as_secs_f64()), "{pace:?}");
    assert_eq!(meter.pace(seconds(20.0), None).left, None, "how much is left is not known");
    assert_eq!(meter.pace(seconds(20.0), Some(0)).left, None, "nothing is left");
    assert_eq!(meter.pace(seconds(20.0), Some(u64::MAX)).left, None, "too long to be believed");
}

#[test]
fn a_stream_that_stops_is_forgotten_in_ten_seconds() {
    let meter = even(1_000_000, 201);
    let pace = meter.pace(seconds(26.0), Some(30_000_000));
    assert!(pace.rate.unwrap() < 600_000 && pace.silent.is_none(), "{pace:?}");
    let pace = meter.pace(seconds(32.0), Some(30_000_000));
    assert_eq!((pace.rate, pace.left, pace.silent), (Some(0), None, Some(Duration::from_secs(12))));
    assert_eq!(pace.to_string(), ", nothing received for 12 s");
    let never = Meter::default();
    assert_eq!(never.pace(seconds(9.0), Some(1)), Pace::default());
    assert_eq!(never.pace(seconds(25.0), Some(1)).to_string(), ", nothing received for 25 s");
}

#[test]
fn an_uneven_stream_has_no_end_in_sight() {
    let mut meter = Meter::default();
    for second in 0..11 {
        meter.add(Duration::from_secs(second), if second < 6 { 10 } else { 1_000_000 });
    }
    let pace = meter.pace(seconds(11.0), Some(1_000_000));
    assert!(pace.rate.is_some() && pace.left.is_none(), "{pace:?}");
    assert!(pace.to_string().ends_with(" kB/s"), "{pace}");
    for second in 11..22 {
        meter.add(Duration::from_secs(second), 1_000_000);
    }
    let pace = meter.pace(seconds(22.0), Some(10_000_000));
    assert_eq!(pace.to_string(), ", 1.0 MB/s, about 10 s left");
}

proptest! {
    /// Whatever comes when: never more than came, never an end of nothing, and nothing panics (a sum that overflows
    /// does, in a test).
    #[test]
    fn no_history_has_an_absurd_pace(
        history in prop::collection::vec((0_u64..40_000, prop_oneof![0_u64..1 << 40, Just(u64::MAX)]), 0..60),
        looks in prop::collection::vec(0_u64..100_000, 1..10),
        left in prop::option::of(any::<u64>()),
    ) {
        let mut meter = Meter::default();
        let mut total = 0_u64;
        for (at, bytes) in history {
            meter.add(Duration::from_millis(at), bytes);
            total = total.saturating_add(bytes);
            for look in &looks {
                let pace = meter.pace(Duration::from_millis(*look), left);
                prop_assert!(pace.rate.is_none_or(|rate| rate <= total), "{:?} of {}", pace, total);
                if let Some(rest) = pace.left {
                    prop_assert!(pace.rate > Some(0) && left > Some(0) && rest <= LONGEST);
                }
                let text = pace.to_string();
                prop_assert!(!text.contains("NaN") && !text.contains("inf") && !text.contains('-'), "{}", text);
            }
        }
    }

    /// At the same rate, more bytes take at least as long.
    #[test]
    fn more_takes_longer(rate in 1_u64..1 << 40, left in 1_u64..1 << 50, more in 0_u64..1 << 50) {
        if let (Some(short), Some(long)) = (rest(left, rate), rest(left + more, rate)) {
            prop_assert!(short <= long);
        }
    }
}
