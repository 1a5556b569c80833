//! One call per volume at a time.
//!
//! A call takes the guard before it looks at anything of the volume, and moves it into the blocking closure that does
//! the work. A call whose future is dropped thus keeps its volume until the work has ended.
//!
//! The end of a volume does not wait for its beginning: a call that takes a volume away asks the call that has it to stop
//! waiting, and gets the guard once that call has let it go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::volume::id::VolumeId;

/// The volumes that calls are working on.
#[derive(Debug, Clone, Default)]
pub struct Guards(Arc<Mutex<HashMap<VolumeId, Held>>>);

/// What others see of a guard that is held.
#[derive(Debug, Clone, Default)]
struct Held {
    /// Cancelled to ask the holder not to wait any longer.
    withdrawn: CancellationToken,
    /// Cancelled when the guard is released.
    released: CancellationToken,
}

/// The exclusive right to work on one volume. Released on drop.
#[derive(Debug)]
pub(crate) struct VolumeGuard {
    volume: VolumeId,
    held: Held,
    guards: Guards,
}

impl Guards {
    /// Takes the volume's guard; `None` if another call has it.
    pub(crate) fn take(&self, volume: &VolumeId) -> Option<VolumeGuard> {
        self.take_or_see(volume).ok()
    }

    /// Takes the volume's guard, from a call that waits for a pull if need be; `None` if the call that has it does not
    /// end within `patience`.
    pub(crate) async fn take_over(&self, volume: &VolumeId, patience: Duration) -> Option<VolumeGuard> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let held = match self.take_or_see(volume) {
                Ok(guard) => return Some(guard),
                Err(held) => held,
            };
            held.withdrawn.cancel();
            tokio::time::timeout_at(deadline, held.released.cancelled()).await.ok()?;
        }
    }

    fn take_or_see(&self, volume: &VolumeId) -> Result<VolumeGuard, Held> {
        let mut all = self.lock();
        if let Some(held) = all.get(volume) {
            return Err(held.clone());
        }
        let held = Held::default();
        all.insert(volume.clone(), held.clone());
        Ok(VolumeGuard { volume: volume.clone(), held, guards: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Held>> {
        // A panic elsewhere cannot leave a map of ids inconsistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VolumeGuard {
    /// The guarded volume.
    pub(crate) fn volume(&self) -> &VolumeId {
        &self.volume
    }

    /// Completes once another call takes the volume away. Whoever waits with a guard listens to this.
    pub(crate) async fn withdrawn(&self) {
        self.held.withdrawn.cancelled().await;
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        self.guards.lock().remove(&self.volume);
        self.held.released.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_done() {
        let guards = Guards::default();
        let (a, b): (VolumeId, VolumeId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = guards.take(&a).unwrap();
        assert_eq!(first.volume(), &a);
        assert!(guards.take(&a).is_none());
        assert!(guards.take(&b).is_some());
        drop(first);
        assert!(guards.take(&a).is_some());
    }

    #[tokio::test]
    async fn one_who_waits_is_asked_to_let_go_and_one_who_works_is_not_robbed() {
        let (guards, a) = (Guards::default(), "a".parse::<VolumeId>().unwrap());
        let waiting = guards.take(&a).unwrap();
        let waiting = tokio::spawn(async move { waiting.withdrawn().await });
        let taken = guards.take_over(&a, Duration::from_secs(10)).await.unwrap();
        waiting.await.unwrap();
        // This one works, and does not listen.
        assert!(guards.take_over(&a, Duration::from_millis(20)).await.is_none());
        assert!(guards.take(&a).is_none());
        drop(taken);
        assert!(guards.take_over(&a, Duration::ZERO).await.is_some());
    }
}
