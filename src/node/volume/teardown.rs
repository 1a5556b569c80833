//! The end of a volume: unpublish and unstage. It is carried out whatever has become of the state directory.
//!
//! A pod cannot go while its volume stays, so only what the mount table shows decides: what this driver has mounted on
//! the target goes, and nothing else. The record says which other places the volume is in, no more. One that cannot be
//! read, or not be changed, is logged; the recovery puts right what then remains of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::execute::{Io, remove_directory};
use super::guard::VolumeGuard;
use super::plan::{self, Step, VolumePlan};
use super::record::{RecordError, VolumeRecord};
use super::target::TargetPath;
use super::{VolumeError, Volumes, milliseconds};
use crate::node::mount;
use crate::volume::id::VolumeId;

/// How long a teardown waits for a call that works on the volume. One that waits for a pull is asked to let go; a mount
/// takes milliseconds, unless its objects are examined first.
const PATIENCE: Duration = Duration::from_secs(10);

impl Volumes {
    /// Unmounts a volume from a target and removes the target. Succeeds if it is not there. A publish of the volume that
    /// waits for its pull is ended.
    ///
    /// # Errors
    /// The mount or the directory cannot be removed.
    pub(crate) async fn unpublish(&self, volume: VolumeId, target: TargetPath) -> Result<(), VolumeError> {
        let begun = Instant::now();
        // Nobody asks for its tag any more, even if this fails: kubelet tries again until it does not.
        self.0.followed.forget(&volume);
        let guard = self.take_over(&volume).await?;
        let (unpublished, images) = (target.clone(), Arc::clone(&self.0.images));
        let (changed, is_gone) = self
            .blocking(move |io| {
                let (record, damaged) = io.record_if_readable(&guard);
                let seen = io.observe_target(&guard, &target, record)?;
                let changed = io.tear_down(&guard, &target, plan::unpublish(&target, &seen), damaged)?;
                // The image counts as used until the unpublish, not only until the publish.
                if let (true, Some(record)) = (changed, &seen.record) {
                    let members = record.members.iter().map(|member| &member.image);
                    members.chain([&record.image]).for_each(|image| images.used(image));
                }
                Ok((changed, matches!(io.records.read(guard.volume()), Ok(None))))
            })
            .await?;
        if is_gone {
            self.0.repairs.forget(&volume);
        }
        self.0.metrics.unmounted(unpublished.path());
        self.0.pod_events.forget_volume(&volume);
        self.0.pulls.forget(&volume);
        if changed {
            tracing::info!(target_path = %unpublished, milliseconds = milliseconds(begun), "unpublished");
        }
        Ok(())
    }

    /// Unstages a volume. Succeeds if it is not staged. A stage of the volume that waits for its pull is ended.
    ///
    /// # Errors
    /// Another call does not let go of the volume.
    pub(crate) async fn unstage(&self, volume: VolumeId, path: TargetPath) -> Result<(), VolumeError> {
        let guard = self.take_over(&volume).await?;
        self.blocking(move |io| {
            let (record, damaged) = io.record_if_readable(&guard);
            let plan = plan::unstage(&path, &io.observed(record));
            io.tear_down(&guard, &path, plan, damaged)
        })
        .await?;
        Ok(())
    }

    async fn take_over(&self, volume: &VolumeId) -> Result<VolumeGuard, VolumeError> {
        let taken = self.0.guards.take_over(volume, PATIENCE).await;
        taken.ok_or_else(|| VolumeError::Busy(volume.clone()))
    }
}

/// Unmounts what this driver has mounted on a target, and removes the target, where there are no records: the state
/// directory is not open, or cannot be. Blocking.
///
/// # Errors
/// The mount is foreign or cannot be removed, or the directory cannot.
pub(crate) fn unmount_without_records(target: &TargetPath) -> Result<(), VolumeError> {
    mount::unmount(target.path())?;
    Ok(remove_directory(target)?)
}

impl Io<'_> {
    /// The volume's record, if it can be read, and whether it must be removed because it is none.
    fn record_if_readable(&self, guard: &VolumeGuard) -> (Option<VolumeRecord>, bool) {
        match self.records.read(guard.volume()) {
            Ok(record) => (record, false),
            Err(error) => {
                tracing::warn!("a volume is taken down without its record: {error}");
                (None, matches!(error, RecordError::Damaged { .. }))
            }
        }
    }

    /// Carries out the plan of a teardown. Returns whether anything had to be done.
    fn tear_down(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        plan: VolumePlan,
        damaged: bool,
    ) -> Result<bool, VolumeError> {
        let mut steps = match plan {
            VolumePlan::Done => Vec::new(),
            VolumePlan::Refuse(refusal) => return Err(refusal.into()),
            VolumePlan::Run(steps) => steps,
        };
        // Nobody could tell any more what it was for, and a record that may name any image stops collections.
        if damaged && !self.records.claims_other(guard.volume(), target.path()) {
            steps.push(Step::Forget);
        }
        for step in &steps {
            match (self.step(guard, target, step), step) {
                (Ok(()), _) => {}
                (Err(error), Step::Release(_) | Step::Record(_) | Step::Forget) => {
                    self.records.disclaim(target.path());
                    tracing::warn!("a volume was taken down, and housekeeping will do the rest: {error}");
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        Ok(!steps.is_empty())
    }
}
