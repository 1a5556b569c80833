//! A flag by which whoever wants a tree tells its builder that it is not wanted any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::error::TreeError;

/// Whether to stop. Clones are one flag.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops whoever looks at the flag.
    pub fn stop(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// # Errors
    /// [`TreeError::Stopped`]
    pub(super) fn check(&self) -> Result<(), TreeError> {
        if self.is_stopped() { Err(TreeError::Stopped) } else { Ok(()) }
    }
}
