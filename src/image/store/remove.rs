//! Removing images that the plan of [`super::gc`] names, and saying why.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::gc::{self, Candidate, CollectionPlan, Policy};
use super::inventory::{self, Needs};
use super::lock::Collecting;
use super::mounted::MountedImages;
use super::slice::Slice;
use super::worth::Valuation;
use super::{ImageRecord, Space, Store, StoreError};
use crate::oci::digest::Digest;

/// Why an image went, or would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// What made room necessary.
    pub cause: Cause,
    /// Seconds since it was last used.
    pub idle_seconds: u64,
    /// Bytes that are freed, when those that went before have gone; 0 where all went that nothing needs, and nobody
    /// reckoned.
    pub frees_bytes: u64,
    /// Bytes of files, of layers that have to be fetched again for it; of layers that others have, too, its part. 0 as above.
    pub refetch_bytes: u64,
}

/// What made room necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// All was to go that nothing needs.
    Asked,
    /// The filesystem is fuller than the mark, or a pull needs room.
    Full,
    /// What nothing needs takes more than it may.
    Surplus,
}

impl Cause {
    fn words(self) -> &'static str {
        match self {
            Self::Asked => "all go that nothing needs",
            Self::Full => "the filesystem is full",
            Self::Surplus => "what nothing needs takes more than it may",
        }
    }

    fn of(policy: &Policy, space: &Space) -> Self {
        match policy {
            Policy::Unneeded { .. } => Self::Asked,
            Policy::Watermarks { high, .. } if space.exceeds(*high) => Self::Full,
            Policy::Watermarks { .. } => Self::Surplus,
        }
    }
}

impl Removal {
    fn of(cause: Cause, image: &Candidate, now: SystemTime) -> Self {
        let idle = now.duration_since(image.last_used).unwrap_or(Duration::ZERO);
        let (frees_bytes, refetch_bytes) = (image.frees.bytes, image.worth.refetch);
        Self { cause, idle_seconds: idle.as_secs(), frees_bytes, refetch_bytes }
    }

    fn log(&self, image: &ImageRecord) {
        tracing::info!(
            image.digest = %image.key(),
            names = ?image.names,
            why = self.cause.words(),
            idle_seconds = self.idle_seconds,
            frees_bytes = self.frees_bytes,
            refetch_bytes = self.refetch_bytes,
            "image removed"
        );
    }
}

impl Store {
    /// Plans by a policy, and removes the records of what goes, unless it is a dry run; returns them. Only for the removal,
    /// nothing can be noted in a hold.
    pub(super) fn remove_images(
        &self,
        _collecting: &Collecting,
        (policy, mounted, dry_run): (&Policy, &MountedImages<'_>, bool),
        valuation: &Valuation,
        space: Space,
    ) -> Result<Vec<(ImageRecord, Removal)>, StoreError> {
        let inventory = inventory::take(&self.parts, mounted, valuation, space)?;
        let manifests = match gc::plan(&inventory, policy) {
            CollectionPlan::Done => return Ok(Vec::new()),
            CollectionPlan::Run(manifests) => manifests,
            CollectionPlan::Refuse(why) => return Err(StoreError::Blocked(why)),
        };
        let planned: HashMap<_, _> = inventory.images.iter().map(|image| (image.manifest, image)).collect();
        let cause = Cause::of(policy, &space);
        let images = &self.parts.images;
        let mut removed = Vec::new();
        let mut rest = manifests.into_iter().peekable();
        while rest.peek().is_some() {
            let all = self.store_lock.exclusive(self.patience)?;
            let slice = Slice::begin();
            let needs = Needs::read(&self.parts, mounted)?;
            if !needs.unknown.is_empty() {
                return Err(StoreError::Blocked(needs.unknown.join("; ")));
            }
            let end = slice.end();
            while let Some(manifest) = rest.next_if(|_| Instant::now() < end) {
                let Some(plan) = planned.get(&manifest) else { continue };
                if let Some(record) = self.remove_image(plan, &needs, dry_run)? {
                    let removal = Removal::of(cause, plan, inventory.now);
                    if !dry_run {
                        removal.log(&record);
                    }
                    removed.push((record, removal));
                }
            }
            if rest.peek().is_none() && !dry_run {
                // While nothing can be noted: who pins an image again holds it first.
                let may_go = |image: &Digest| Ok(!needs.holds(image) && images.get(image)?.is_none());
                self.parts.pins.forget_ended(may_go)?;
            }
            drop(all);
            if rest.peek().is_some() {
                slice.pause();
            }
        }
        // Before any layer or object goes: a record that came back after a power cut would name what is gone.
        images.sync()?;
        Ok(removed)
    }

    /// Removes an image's record, if it is still as planned; returns it. Nothing can be noted in a hold meanwhile.
    fn remove_image(
        &self,
        planned: &Candidate,
        needs: &Needs,
        dry_run: bool,
    ) -> Result<Option<ImageRecord>, StoreError> {
        let images = &self.parts.images;
        let image = match images.stored(&planned.manifest) {
            Ok(Some(image)) => image,
            // Gone or torn since the inventory: there is no image to remove.
            Ok(None) | Err(StoreError::Torn { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // It may have come into use since it was planned, and gone out of it again.
        if needs.of(&image.record).is_some() || planned.last_used != image.last_used {
            return Ok(None);
        }
        if !dry_run {
            images.remove(&planned.manifest)?;
        }
        Ok(Some(image.record))
    }
}
