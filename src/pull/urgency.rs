//! Whether anybody waits for a pull, or it is made for who may come.

use std::future::Future;
use std::pin::pin;

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

    /// Does `work`, and hurries as soon as what it makes is `wanted` by one who is waited for.
    pub(super) async fn hurried_by<T>(&self, wanted: &Self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if !self.is_urgent() {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = wanted.becomes_urgent() => self.hurry(),
            }
        }
        work.await
    }

    /// Waits until somebody does.
    pub(super) async fn becomes_urgent(&self) {
        // The sender is this value's own, so that the channel is open.
        let _ = self.0.subscribe().wait_for(|urgent| *urgent).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_who_is_waited_for_makes_what_it_waits_for_urgent() {
        let (prefetch, layer) = (Urgency::patient(), Urgency::patient());
        let pull = prefetch.clone();
        let wanted = layer.clone();
        // The work cannot end before it has become urgent.
        let work = tokio::spawn(async move { pull.hurried_by(&wanted, pull.becomes_urgent()).await });
        layer.hurry();
        work.await.unwrap();
        assert!(prefetch.is_urgent());
    }
}
