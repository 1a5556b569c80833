//! What an execution reads from the store and writes to it. Every access of a request to records is here. Blocking.

use std::sync::Arc;

use crate::image::store::{Held, Hold, ImageRecord, Store, StoreError};
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;
use crate::oci::reference::Reference;
use crate::pull::error::About as _;
use crate::pull::plan::{self, Answer, Facts, Lookup, NewRecord, Reading, Step, Terms};
use crate::pull::pulls::note_used;
use crate::pull::rights::Rights;
use crate::pull::{ImageRequest, PullError, PullPolicy, recipe, stored_evidence};

/// The records that concern one request.
#[derive(Debug)]
pub(super) struct Records {
    store: Arc<Store>,
    rights: Rights,
    hold: Hold,
    reference: Reference,
    platform: Platform,
    policy: PullPolicy,
    pinned: Option<Digest>,
    /// The reference as the user wrote it, for messages.
    image: String,
}

impl Records {
    pub(super) fn of(store: &Arc<Store>, rights: &Rights, hold: &Hold, request: &ImageRequest) -> Self {
        Self {
            store: Arc::clone(store),
            rights: rights.clone(),
            hold: hold.clone(),
            reference: request.reference.clone(),
            platform: request.platform.clone(),
            policy: request.policy,
            pinned: request.pinned,
            image: request.reference.to_string(),
        }
    }

    /// Takes the steps that need records alone, and returns what is known then, and the first step that needs more.
    pub(super) fn proceed(&self, terms: &Terms, mut facts: Facts) -> Result<(Facts, Step), PullError> {
        loop {
            let answer = match plan::next(terms, &facts) {
                Step::Read(reading) => self.read(reading)?,
                Step::Record(new) => self.record(new)?,
                other => return Ok((facts, other)),
            };
            facts.note(answer);
        }
    }

    fn read(&self, reading: Reading) -> Result<Answer, PullError> {
        Ok(match reading {
            Reading::Image(lookup) => Answer::Image(lookup, self.look_up(lookup)?.map(Arc::new)),
            Reading::Granted(lookup, manifest) => Answer::Granted(lookup, self.rights.is_granted(&manifest)?),
            Reading::FromHere(lookup, manifest) => {
                Answer::FromHere(lookup, self.rights.is_from_here(&manifest)?)
            }
        })
    }

    fn record(&self, new: NewRecord) -> Result<Answer, PullError> {
        match &new {
            NewRecord::Grant(manifest) => self.rights.record_grant(&self.hold, manifest)?,
            NewRecord::Names { top, manifest } => {
                let names = [self.image.clone(), self.pinned_name(top)];
                self.store
                    .names()
                    .remember(&self.hold, &names, &self.platform, *manifest)
                    .about(&self.image)?;
            }
            NewRecord::Evidence(evidence) => {
                let origin = self.rights.origin().name();
                stored_evidence::keep(&self.store, &self.hold, evidence, origin, &self.image)?;
            }
            NewRecord::Preloaded { manifest, fetched } => {
                let blobs = fetched.iter().flat_map(|path| recipe::layers(&path.manifest));
                let blobs = blobs.map(|layer| recipe::key(&layer.descriptor.digest, layer.form));
                self.rights.record_preload(&self.hold, manifest, blobs)?;
            }
            NewRecord::Used(manifest) => note_used(&self.store, manifest),
        }
        Ok(Answer::Recorded(new))
    }

    fn look_up(&self, lookup: Lookup) -> Result<Option<ImageRecord>, PullError> {
        match lookup {
            Lookup::Request => match &self.pinned {
                Some(manifest) => self.stored(manifest),
                None => self.by_name(&self.image),
            },
            Lookup::Resolved(top) => self.by_name(&self.pinned_name(&top)),
            Lookup::Manifest(manifest) => self.stored(&manifest),
        }
    }

    /// Whether the reference has led to an image before, or the volume shows one.
    pub(super) fn is_known(&self) -> Result<bool, PullError> {
        if self.pinned.is_some() {
            return Ok(true);
        }
        let named = self.store.names().resolve(&self.image, &self.platform).about(&self.image)?;
        Ok(named.is_some())
    }

    fn by_name(&self, name: &str) -> Result<Option<ImageRecord>, PullError> {
        match self.store.names().resolve(name, &self.platform).about(&self.image)? {
            Some(manifest) => self.stored(&manifest),
            None => Ok(None),
        }
    }

    /// The image's record, which stays with all that it names for as long as the request does.
    fn stored(&self, manifest: &Digest) -> Result<Option<ImageRecord>, PullError> {
        loop {
            let Some(record) = self.image_record(manifest).about(&self.image)? else { return Ok(None) };
            // Read after it was noted: no collection has taken it in between.
            if self.hold.keeps(&record) {
                return Ok(Some(record));
            }
            self.hold.keep_blocking(&Held::of(&record)).about(&self.image)?;
        }
    }

    fn image_record(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        match self.policy {
            // A record that is not authentic is the answer where the image cannot be pulled again.
            PullPolicy::Never => self.store.images().get(manifest),
            PullPolicy::Always | PullPolicy::IfNotPresent => self.store.images().get_or_set_aside(manifest),
        }
    }

    /// The reference with the digest that it resolves to.
    fn pinned_name(&self, top: &Digest) -> String {
        self.reference.clone().pinned(*top).to_string()
    }
}
