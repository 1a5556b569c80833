//! The minimum transfer rate of a blob. Pure: the caller has the clock.
//!
//! A time limit on the next bytes does not bound a download. A registry that sends one byte every half
//! minute would occupy one of the node's few slots for layers for ever. Nor does a low limit bound a large blob: at
//! 10 KiB/s, 100 GiB take four months. So the limit grows with the size. Only time spent waiting for the network
//! counts, so that a slow local disk is never taken for a slow registry.

use std::time::Duration;

/// The minimum transfer rate of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second; 0 for no minimum whatever the size.
    pub minimum: u64,
    /// The longest time that a whole blob may take; its minimum is what that needs. Zero for no limit.
    pub longest: Duration,
    /// The time over which bytes are counted.
    pub window: Duration,
    /// The number of slow windows after which the blob fails. A slow window before that ends its connection.
    pub patience: u32,
}

impl Default for Pace {
    /// 10 KiB/s over a minute, three times: slower than any network that images are pulled over. 12 hours for a blob
    /// need 248 KiB/s for 10 GiB.
    fn default() -> Self {
        Self {
            minimum: 10 << 10,
            longest: Duration::from_secs(12 * 3600),
            window: Duration::from_secs(60),
            patience: 3,
        }
    }
}

impl Pace {
    /// The same for a blob of `size` bytes.
    pub(super) fn for_size(self, size: u64) -> Self {
        let needed = size.checked_div(self.longest.as_secs()).unwrap_or(0);
        // Without any minimum a registry may take as long as it likes.
        let minimum = if self.minimum == 0 { 0 } else { self.minimum.max(needed) };
        Self { minimum, ..self }
    }
}

/// Counts the bytes of the current window.
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

    /// Counts `bytes` that arrived after `waited`.
    ///
    /// # Errors
    /// The window was too slow; the error is its rate in bytes per second.
    pub(super) fn count(&mut self, bytes: u64, waited: Duration) -> Result<(), u64> {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < self.pace.window || self.pace.minimum == 0 {
            return Ok(());
        }
        let rate = (self.bytes as f64 / self.waited.as_secs_f64()) as u64;
        // Each window counts alone: a fast start does not excuse a slow end.
        (self.bytes, self.waited) = (0, Duration::ZERO);
        if rate >= self.pace.minimum {
            return Ok(());
        }
        self.slow += 1;
        Err(rate)
    }

    /// Whether the blob fails now instead of getting another connection.
    pub(super) fn is_over(&self) -> bool {
        self.slow >= self.pace.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn window() -> Window {
        Window::new(Pace { minimum: 100, window: 10 * SECOND, patience: 2, ..Pace::default() })
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
    fn the_minimum_grows_with_the_size() {
        let minimum = |pace: Pace, size| pace.for_size(size).minimum;
        let pace = Pace::default();
        assert_eq!(minimum(pace, 100 << 20), pace.minimum);
        assert_eq!(minimum(pace, 100 << 30), (100 << 30) / (12 * 3600));
        assert_eq!(minimum(Pace { longest: Duration::ZERO, ..pace }, u64::MAX), pace.minimum);
        assert_eq!(minimum(Pace { minimum: 0, ..pace }, u64::MAX), 0);
    }

    #[test]
    fn no_minimum_is_no_bound() {
        let mut window = Window::new(Pace { minimum: 0, ..Pace::default() });
        assert!((0..1000).all(|_| window.count(0, 60 * SECOND).is_ok()));
    }
}
