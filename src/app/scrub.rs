//! Scrubbing the store in the background: at most so many bytes a second, one round in so many days.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::image::store::{Scrubber, Store};
use crate::image::verity::VerityDigest;

/// How often the schedule is looked at, and how soon a round goes on that failed.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// The longest pause after an object, so that a shutdown is noticed; a giant's goes in pieces.
const PAUSE: Duration = Duration::from_millis(500);

/// When and how fast.
#[derive(Debug, Clone, Copy)]
pub struct ScrubSchedule {
    /// The time from the end of a round to the next; zero for none.
    pub every: Duration,
    /// Bytes a second.
    pub rate: u64,
}

/// Scrubs until the shutdown. What is found damaged goes to `suspects`, who examine it.
///
/// # Errors
/// The work panicked.
pub async fn keep(
    store: Arc<Store>,
    schedule: ScrubSchedule,
    suspects: mpsc::Sender<VerityDigest>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if schedule.every.is_zero() {
        shutdown.cancelled().await;
        return Ok(());
    }
    loop {
        let (store, suspects, stop) = (Arc::clone(&store), suspects.clone(), shutdown.clone());
        tokio::task::spawn_blocking(move || round(&store, schedule, suspects, &stop)).await?;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn round(
    store: &Store,
    schedule: ScrubSchedule,
    suspects: mpsc::Sender<VerityDigest>,
    shutdown: &CancellationToken,
) {
    let due = store.scrub_cursor().map(|cursor| cursor.due_in(schedule.every, SystemTime::now()).is_zero());
    let scrubbed = match due {
        Ok(false) => return,
        Ok(true) => {
            let stop = || shutdown.is_cancelled();
            store.scrub(&mut Paced {
                rate: schedule.rate,
                stop: &stop,
                damaged: &mut |object| {
                    // Full: the examiner is busy with others, and the next round finds this one again.
                    let _ = suspects.try_send(object);
                },
            })
        }
        Err(error) => Err(error),
    };
    if let Err(error) = scrubbed {
        tracing::warn!(%error, "the store's objects are not all read again yet; it goes on later");
    }
}

/// Reads at most `rate` bytes a second.
pub struct Paced<'a> {
    /// Bytes a second; zero for as fast as it goes.
    pub rate: u64,
    /// Whether to stop.
    pub stop: &'a dyn Fn() -> bool,
    /// Hears of damaged objects.
    pub damaged: &'a mut dyn FnMut(VerityDigest),
}

impl Scrubber for Paced<'_> {
    fn read(&mut self, bytes: u64, took: Duration) -> bool {
        let mut rest = pause(bytes, took, self.rate);
        while !rest.is_zero() && !(self.stop)() {
            let now = rest.min(PAUSE);
            std::thread::sleep(now);
            rest = rest.saturating_sub(now);
        }
        !(self.stop)()
    }

    fn damaged(&mut self, object: VerityDigest) {
        (self.damaged)(object);
    }
}

/// How long to rest after so many bytes.
fn pause(bytes: u64, took: Duration, rate: u64) -> Duration {
    // An object costs its opening, too.
    const OPENING: u64 = 16 << 10;
    let nanos = u128::from(bytes.saturating_add(OPENING)) * 1_000_000_000;
    let wanted = nanos.checked_div(u128::from(rate)).unwrap_or(0);
    Duration::from_nanos(u64::try_from(wanted).unwrap_or(u64::MAX)).saturating_sub(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_what_was_read() {
        let second = Duration::from_secs(1);
        assert_eq!(pause((10 << 20) - (16 << 10), Duration::ZERO, 10 << 20), second);
        assert_eq!(pause((10 << 20) - (16 << 10), second, 10 << 20), Duration::ZERO);
        assert_eq!(pause(1 << 40, Duration::ZERO, 0), Duration::ZERO, "no limit");
        assert!(pause(u64::MAX, Duration::ZERO, 1) > Duration::from_secs(1 << 30));
    }
}
