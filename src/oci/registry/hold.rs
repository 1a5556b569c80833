//! How long a registry wants not to be asked, as one client remembers it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::oci::Wait;

/// When a client may ask again.
#[derive(Debug, Default)]
pub(super) struct Hold(Mutex<Option<Wait>>);

impl Hold {
    /// Nothing is asked for so long, or longer if that was said before.
    pub(super) fn extend(&self, host: &str, by: Duration) {
        let until = Instant::now() + by;
        let mut held = self.held();
        if held.as_ref().is_none_or(|held| held.until < until) {
            *held = Some(Wait { host: host.to_owned(), until });
        }
    }

    /// What is being waited for, if anything is.
    pub(super) fn current(&self) -> Option<Wait> {
        self.held().clone().filter(|held| !held.left().is_zero())
    }

    fn held(&self) -> MutexGuard<'_, Option<Wait>> {
        // It is replaced as a whole, so a poisoned one is a good one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_that_was_asked_for_counts_until_it_is_over() {
        let hold = Hold::default();
        assert_eq!(hold.current(), None);
        hold.extend("r.io", Duration::from_secs(60));
        hold.extend("auth.r.io", Duration::from_secs(1));
        let wait = hold.current().unwrap();
        assert_eq!(wait.host, "r.io");
        assert!(wait.left() > Duration::from_secs(50), "{wait:?}");
        let hold = Hold::default();
        hold.extend("r.io", Duration::ZERO);
        assert_eq!(hold.current(), None);
    }
}
