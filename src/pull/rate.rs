//! How fast bytes arrive, and when the rest will be here. Pure: the caller has the clock.
//!
//! A meter keeps the bytes of the last [`WINDOW`] seconds, one sum per second, so that whoever looks at it, however often,
//! sees the same moving average, and nobody has to look for it to be right. Times are counted from any one instant.

use std::fmt;
use std::time::Duration;

use crate::units;

/// Seconds of the moving average.
const WINDOW: u64 = 10;
const SLOTS: usize = WINDOW as usize + 1;
/// Whole seconds of bytes before anything is estimated.
const STEADY: u64 = 4;
/// How many times faster the one half of those may be than the other.
const EVEN: u64 = 3;
/// What takes longer than this is not estimated: the registry does not answer, or as good as.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long nothing must have come to be worth saying.
const SILENCE: Duration = Duration::from_secs(10);

/// The bytes of the last seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    /// One sum for each second, at the place of that second modulo their number.
    seconds: [u64; SLOTS],
    /// The newest second that has a sum.
    newest: u64,
    first: Option<Duration>,
    last: Duration,
}

/// How something is going on: what is known of it, which may be nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Bytes per second, over the last ten; `None` in the first second.
    pub rate: Option<u64>,
    /// How long the rest takes at this rate; `None` until the rate is steady, or where the rest is not known.
    pub left: Option<Duration>,
    /// How long nothing has come, where that is ten seconds and more.
    pub silent: Option<Duration>,
}

impl Meter {
    /// Bytes have come. A clock that steps back counts as one that stands.
    pub(super) fn add(&mut self, at: Duration, bytes: u64) {
        self.first.get_or_insert(at);
        self.last = self.last.max(at);
        let second = at.as_secs().max(self.newest);
        let passed = (second - self.newest).min(SLOTS as u64);
        for number in 0..passed {
            self.seconds[slot(second - number)] = 0;
        }
        self.newest = second;
        let sum = &mut self.seconds[slot(second)];
        *sum = sum.saturating_add(bytes);
    }

    /// The pace at a time at which `left` bytes are still to come, if that is known.
    pub(super) fn pace(&self, at: Duration, left: Option<u64>) -> Pace {
        let Some(first) = self.first else {
            return Pace { silent: Some(at).filter(|at| *at >= SILENCE), ..Pace::default() };
        };
        let at = at.max(self.last);
        let silent = Some(at - self.last).filter(|silent| *silent >= SILENCE);
        let from = first.max(Duration::from_secs(at.as_secs().saturating_sub(WINDOW)));
        let span = at - from;
        if span < Duration::from_secs(1) {
            return Pace { rate: None, left: None, silent };
        }
        let bytes = self.sum(from.as_secs(), at.as_secs());
        // A quotient beyond 64 bits is cut off there by the conversion.
        let rate = (bytes as f64 / span.as_secs_f64()) as u64;
        Pace {
            rate: Some(rate),
            left: left.filter(|_| self.is_steady(at)).and_then(|l| rest(l, rate)),
            silent,
        }
    }

    /// Whether bytes come evenly enough to tell the future from the past. Only whole seconds are compared.
    fn is_steady(&self, at: Duration) -> bool {
        let Some(first) = self.first else { return false };
        let now = at.as_secs();
        let from = (first.as_secs() + 1).max(now.saturating_sub(WINDOW));
        let half = now.saturating_sub(from) / 2;
        if half * 2 < STEADY {
            return false;
        }
        let older = self.sum(now - 2 * half, now - half - 1);
        let newer = self.sum(now - half, now - 1);
        let (less, more) = (older.min(newer), older.max(newer));
        less > 0 && more / EVEN <= less
    }

    /// The bytes from one second to another, both included.
    fn sum(&self, from: u64, to: u64) -> u64 {
        let oldest = (self.newest + 1).saturating_sub(SLOTS as u64);
        let kept = from.max(oldest)..=to.min(self.newest);
        kept.map(|second| self.seconds[slot(second)]).fold(0, u64::saturating_add)
    }
}

fn slot(second: u64) -> usize {
    (second % SLOTS as u64) as usize
}

/// How long so many bytes take, if that can be said.
fn rest(left: u64, rate: u64) -> Option<Duration> {
    if left == 0 || rate == 0 {
        return None;
    }
    Some(Duration::from_secs_f64(left as f64 / rate as f64)).filter(|rest| *rest <= LONGEST)
}

/// `, 1.2 MB/s, about 35 s left`: to be appended to amounts. Empty if nothing is known.
impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(silent) = self.silent {
            return write!(f, ", nothing received for {}", units::time(silent));
        }
        if let Some(rate) = self.rate {
            write!(f, ", {}/s", units::bytes(rate))?;
        }
        if let Some(left) = self.left {
            write!(f, ", about {} left", units::about(left))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
