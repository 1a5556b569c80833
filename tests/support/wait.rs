//! Waiting for a condition, not for a time: what works by itself takes as long as a loaded machine needs.

use std::time::{Duration, Instant};

/// Waits for something that nobody is told of; the deadline is for what never comes, not a judgement of speed.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
