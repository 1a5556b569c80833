//! The innocent's times, idle and in the storm, beside what the machine itself took.

use std::time::Duration;

use crate::innocent::Times;

/// At most so many times as long: the 99th of a hundred publishes.
const RATIO: f64 = 3.0;
/// What is too short to be compared: one slice of a scheduler that has others to run as well.
const FLOOR: Duration = Duration::from_millis(4);

/// Prints the figures, and fails if the storm's are too far off.
///
/// The publish is judged as it is. What the control takes longer in the storm than before says how much of that is the
/// machine's: other work on its processors, and a disk that others sync, the storm's own pulls among them.
pub fn compare(idle: &Times, storm: &Times) {
    let publish = ratio("publishes of an innocent pod", &idle.publishes, &storm.publishes);
    let machine = ratio("times the machine alone", &idle.control, &storm.control).max(1.0);
    println!(
        "soak: p99 of a publish in the storm is {publish:.2} of the idle one (floor {FLOOR:?}; at most {RATIO}); that of \
         the machine alone is {machine:.2}"
    );
    assert!(publish <= RATIO, "the innocent pod waited {publish:.2} times as long");
}

/// Prints times; returns the ratio of their 99th percentiles.
fn ratio(what: &str, idle: &[Duration], storm: &[Duration]) -> f64 {
    let of = |times: &[Duration], percent: usize| {
        let mut sorted = times.to_vec();
        sorted.sort();
        sorted[(sorted.len() - 1) * percent / 100]
    };
    for (name, times) in [("idle", idle), ("storm", storm)] {
        let [median, most, all] = [50, 99, 100].map(|percent| of(times, percent));
        println!("soak: {name}: {} {what}, p50 {median:.1?}, p99 {most:.1?}, longest {all:.1?}", times.len());
    }
    of(storm, 99).as_secs_f64() / of(idle, 99).max(FLOOR).as_secs_f64()
}
