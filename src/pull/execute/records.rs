//! What an execution reads from the store and writes to it. Every access of a request to records is here.

use std::sync::Arc;

use super::Execution;
use crate::image::store::{Held, ImageRecord, StoreError};
use crate::oci::digest::Digest;
use crate::pull::error::About as _;
use crate::pull::plan::{Answer, Lookup, NewRecord, Reading};
use crate::pull::{PullError, PullPolicy, recipe, stored_evidence};

impl Execution<'_> {
    pub(super) async fn read(&self, reading: Reading) -> Result<Answer, PullError> {
        Ok(match reading {
            Reading::Image(lookup) => Answer::Image(lookup, self.look_up(lookup).await?.map(Arc::new)),
            Reading::Granted(lookup, manifest) => Answer::Granted(lookup, self.rights.is_granted(&manifest)?),
            Reading::FromHere(lookup, manifest) => {
                Answer::FromHere(lookup, self.rights.is_from_here(&manifest)?)
            }
        })
    }

    pub(super) fn record(&self, new: NewRecord) -> Result<Answer, PullError> {
        match &new {
            NewRecord::Grant(manifest) => self.rights.record_grant(&self.hold, manifest)?,
            NewRecord::Names { top, manifest } => {
                let names = [self.image.clone(), self.pinned_name(top)];
                self.store()
                    .names()
                    .remember(&self.hold, &names, &self.request.platform, *manifest)
                    .about(&self.image)?;
            }
            NewRecord::Evidence(evidence) => {
                let origin = self.rights.origin().name();
                stored_evidence::keep(self.store(), &self.hold, evidence, origin, &self.image)?;
            }
            NewRecord::Preloaded { manifest, fetched } => {
                let blobs = fetched.iter().flat_map(|path| recipe::blobs(&path.manifest));
                self.rights.record_preload(&self.hold, manifest, blobs.map(|blob| &blob.digest))?;
            }
            NewRecord::Used(manifest) => self.pulls.used(manifest),
        }
        Ok(Answer::Recorded(new))
    }

    async fn look_up(&self, lookup: Lookup) -> Result<Option<ImageRecord>, PullError> {
        match lookup {
            Lookup::Request => match &self.request.pinned {
                Some(manifest) => self.stored(manifest).await,
                None => self.by_name(&self.image).await,
            },
            Lookup::Resolved(top) => self.by_name(&self.pinned_name(&top)).await,
            Lookup::Manifest(manifest) => self.stored(&manifest).await,
        }
    }

    /// Whether the reference has led to an image before, or the volume shows one.
    pub(super) fn is_known(&self) -> Result<bool, PullError> {
        if self.request.pinned.is_some() {
            return Ok(true);
        }
        let named = self.store().names().resolve(&self.image, &self.request.platform).about(&self.image)?;
        Ok(named.is_some())
    }

    async fn by_name(&self, name: &str) -> Result<Option<ImageRecord>, PullError> {
        match self.store().names().resolve(name, &self.request.platform).about(&self.image)? {
            Some(manifest) => self.stored(&manifest).await,
            None => Ok(None),
        }
    }

    /// The image's record, which stays with all that it names for as long as the request does.
    async fn stored(&self, manifest: &Digest) -> Result<Option<ImageRecord>, PullError> {
        loop {
            let Some(record) = self.image_record(manifest).about(&self.image)? else { return Ok(None) };
            // Read after it was noted: no collection has taken it in between.
            if self.hold.keeps(&record) {
                return Ok(Some(record));
            }
            self.hold.keep(&Held::of(&record)).await.about(&self.image)?;
        }
    }

    fn image_record(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        match self.request.policy {
            // A record that is not authentic is the answer where the image cannot be pulled again.
            PullPolicy::Never => self.store().images().get(manifest),
            PullPolicy::Always | PullPolicy::IfNotPresent => self.store().images().get_or_set_aside(manifest),
        }
    }

    /// The reference with the digest that it resolves to.
    fn pinned_name(&self, top: &Digest) -> String {
        self.request.reference.clone().pinned(*top).to_string()
    }
}
