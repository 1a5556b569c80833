//! How slowly a blob may come; pure, the clock is the caller's.
//!
//! A time limit on the next bytes does not bound a download: a registry that sends one byte each half
//! minute would keep one of the node's few places for layers for ever. Only the time that is spent waiting
//! for the network counts, so that a slow disk here is never taken for a slow registry.

use std::time::Duration;

/// The least that a connection must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second; 0 for no bound.
    pub minimum: u64,
    /// The time over which they are counted.
    pub window: Duration,
    /// Windows that may be too slow, each ended by a new connection, before the blob is given up.
    pub patience: u32,
}

impl Default for Pace {
    /// 10 KiB/s over a minute, three times: slower than any line that images are pulled over.
    fn default() -> Self {
        Self { minimum: 10 << 10, window: Duration::from_secs(60), patience: 3 }
    }
}

/// What came in the current window.
#[derive(Debug)]
pub(super) struct Window {
    pace: Pace,
    waited: Duration,
    bytes: u64,
    slow: u32,
}

impl Window {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, waited: Duration::ZERO, bytes: 0, slow: 0 }
    }

    /// Counts `bytes` that took `waited` to come; the error is the rate, in bytes per second, of a window that
    /// brought too little.
    pub(super) fn count(&mut self, bytes: u64, waited: Duration) -> Result<(), u64> {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < self.pace.window || self.pace.minimum == 0 {
            return Ok(());
        }
        let rate = (self.bytes as f64 / self.waited.as_secs_f64()) as u64;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        if rate >= self.pace.minimum {
            return Ok(());
        }
        self.slow += 1;
        Err(rate)
    }

    /// Whether to give the blob up rather than connect anew.
    pub(super) fn is_over(&self) -> bool {
        self.slow >= self.pace.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn window() -> Window {
        Window::new(Pace { minimum: 100, window: 10 * SECOND, patience: 2 })
    }

    #[test]
    fn a_steady_stream_is_never_too_slow() {
        let mut window = window();
        assert!((0..1000).all(|_| window.count(100, SECOND).is_ok()));
        // Nor is one that pauses and catches up within a window.
        assert!((0..100).all(|at| window.count(if at % 10 == 9 { 1000 } else { 0 }, SECOND).is_ok()));
    }

    #[test]
    fn a_trickle_is_given_up_after_some_windows() {
        let mut window = window();
        let first: Vec<_> = (0..10).filter_map(|_| window.count(99, SECOND).err()).collect();
        assert_eq!((first, window.is_over()), (vec![99], false));
        let second: Vec<_> = (0..10).filter_map(|_| window.count(99, SECOND).err()).collect();
        assert_eq!((second, window.is_over()), (vec![99], true));
    }

    #[test]
    fn time_that_was_not_spent_waiting_does_not_count() {
        let mut window = window();
        assert!((0..10_000).all(|_| window.count(1, Duration::from_micros(1)).is_ok()));
    }

    #[test]
    fn no_minimum_is_no_bound() {
        let mut window = Window::new(Pace { minimum: 0, ..Pace::default() });
        assert!((0..1000).all(|_| window.count(0, 60 * SECOND).is_ok()));
    }
}
