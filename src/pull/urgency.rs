//! Whether anybody waits for a pull, or it is made for who may come.

use tokio::sync::watch;

/// Whether somebody waits. It never ends: who has waited will come back. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Urgency(watch::Sender<bool>);

impl Urgency {
    /// That of a pull that somebody waits for.
    pub(super) fn urgent() -> Self {
        Self(watch::Sender::new(true))
    }

    /// That of a pull which nobody waits for yet.
    pub(super) fn patient() -> Self {
        Self(watch::Sender::new(false))
    }

    /// From now on somebody waits.
    pub(super) fn hurry(&self) {
        self.0.send_if_modified(|urgent| !std::mem::replace(urgent, true));
    }

    /// Whether somebody has waited.
    pub(super) fn is_urgent(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until somebody does.
    pub(super) async fn becomes_urgent(&self) {
        // The sender is this value's own, so that the channel is open.
        let _ = self.0.subscribe().wait_for(|urgent| *urgent).await;
    }
}
