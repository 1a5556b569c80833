//! The innocent's times, idle and in the storm.

use std::time::Duration;

use crate::innocent::Times;

/// At most so many times as long: the 99th of a hundred publishes.
const RATIO: f64 = 3.0;
/// What is too short to be compared: one slice of a scheduler that has others to run as well.
const FLOOR: Duration = Duration::from_millis(4);

/// Prints the figures, and fails if the storm's are too far off.
pub fn compare(idle: &Times, storm: &Times) {
    let of = |times: &Times, percent: usize| {
        let mut sorted = times.clone();
        sorted.sort();
        sorted[(sorted.len() - 1) * percent / 100]
    };
    for (name, times) in [("idle", idle), ("storm", storm)] {
        let [median, most, all] = [50, 99, 100].map(|percent| of(times, percent));
        println!(
            "soak: {name}: {} publishes of an innocent pod, p50 {median:.1?}, p99 {most:.1?}, longest {all:.1?}",
            times.len()
        );
    }
    let (quiet, loud) = (of(idle, 99).max(FLOOR), of(storm, 99));
    let ratio = loud.as_secs_f64() / quiet.as_secs_f64();
    println!("soak: p99 in the storm is {ratio:.2} of the idle one (floor {FLOOR:?}; at most {RATIO})");
    assert!(ratio <= RATIO, "the innocent pod waited {ratio:.2} times as long");
}
