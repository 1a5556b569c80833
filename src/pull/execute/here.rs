//! What an execution does on this node: it reads records, writes them, and consults the policy. Every access of a request to
//! records is here. Blocking.

use std::sync::Arc;

use crate::image::seal::{MERGED_SHA512, why_unsealed};
use crate::image::store::{DamageMark, Held, Hold, ImageRecord, Store, StoreError};
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::pull::admission::AdmissionControl;
use crate::pull::error::About as _;
use crate::pull::evidence::Evidence;
use crate::pull::manifest_path::ManifestPath;
use crate::pull::plan::{self, Answer, Case, Facts, Lookup, NewRecord, Reading, Step, Terms};
use crate::pull::pulls::note_used;
use crate::pull::rights::Rights;
use crate::pull::{Caller, ImageRequest, PullError, PullPolicy, recipe, stored_evidence};

/// What concerns one request.
#[derive(Debug)]
pub(super) struct Here {
    store: Arc<Store>,
    control: AdmissionControl,
    rights: Rights,
    hold: Hold,
    request: ImageRequest,
    /// The reference as the user wrote it, for messages.
    image: String,
}

impl Here {
    pub(super) fn of(
        control: &AdmissionControl,
        rights: &Rights,
        hold: &Hold,
        request: &ImageRequest,
    ) -> Self {
        Self {
            store: Arc::clone(&control.store),
            control: control.clone(),
            rights: rights.clone(),
            hold: hold.clone(),
            request: request.clone(),
            image: request.reference.to_string(),
        }
    }

    /// Takes the steps that need nothing but this node, and returns what is known then, and the first step that needs
    /// more.
    pub(super) fn proceed(&self, terms: &Terms, mut facts: Facts) -> Result<(Facts, Step), PullError> {
        loop {
            let answer = match plan::next(terms, &facts) {
                Step::Read(reading) => self.read(reading)?,
                Step::Record(new) => self.record(new)?,
                Step::Judge(case) => self.judge(case)?,
                other => return Ok((facts, other)),
            };
            facts.note(answer);
        }
    }

    fn read(&self, reading: Reading) -> Result<Answer, PullError> {
        Ok(match reading {
            Reading::Image(lookup) => Answer::Image(lookup, self.look_up(lookup)?.map(Arc::new)),
            Reading::Granted(lookup, image) => Answer::Granted(lookup, self.rights.is_granted(&image)?),
            Reading::FromHere(lookup, image) => Answer::FromHere(lookup, self.rights.is_from_here(&image)?),
        })
    }

    fn record(&self, new: NewRecord) -> Result<Answer, PullError> {
        match self.write(&new) {
            // What is here is given all the same; the next one is asked about again.
            Err(error) if self.store.is_only_read() => tracing::debug!(%error, "not on record"),
            written => written?,
        }
        Ok(Answer::Recorded(new))
    }

    fn write(&self, new: &NewRecord) -> Result<(), PullError> {
        match new {
            NewRecord::Grant(image) => self.rights.record_grant(&self.hold, image)?,
            NewRecord::Names { top, image } => {
                let names = [self.name(&self.image), self.name(&self.pinned_name(top))];
                self.store
                    .names()
                    .remember(&self.hold, &names, &self.request.platform, *image)
                    .about(&self.image)?;
            }
            NewRecord::Evidence(evidence) => {
                let about = (self.request.choice.key(&evidence.manifest()), self.rights.origin().name());
                stored_evidence::keep(&self.store, &self.hold, evidence, about, &self.image)?;
            }
            NewRecord::Preloaded { image, fetched } => {
                let blobs = fetched.iter().flat_map(|path| recipe::layers(&path.manifest));
                let choice = &self.request.choice;
                let blobs = blobs.flat_map(|layer| {
                    let blob = (&layer.descriptor.digest, layer.form);
                    [recipe::key(blob, &Choice::default()), recipe::key(blob, choice)]
                });
                let record = match fetched {
                    Some(_) => self.stored(image)?,
                    None => None,
                };
                let layers = record.iter().flat_map(|record| record.layers.iter().copied());
                self.rights.record_preload(&self.hold, image, blobs.chain(layers))?;
            }
            NewRecord::Used(image) => note_used(&self.store, image),
        }
        Ok(())
    }

    fn judge(&self, case: Case) -> Result<Answer, PullError> {
        let (control, request) = (&self.control, &self.request);
        match case {
            Case::Outright => Ok(Answer::Outright(control.refuses_outright(request))),
            Case::WantsSignatures { path, sealed } => {
                self.warn_of_uncompared_seal(&path, sealed);
                let evidence = Arc::new(Evidence::of(&path));
                let wants_signatures = control.wants_signatures(&evidence.subject(request, sealed));
                Ok(Answer::Documents { evidence, wants_signatures })
            }
            Case::Stored(record) => {
                let origin = self.rights.origin().name();
                Ok(Answer::StoredVerdict(control.judge_stored(&self.image, request, origin, &record)?))
            }
            Case::Evidence { evidence, sealed } => {
                Ok(Answer::Verdict(control.judge(&evidence.subject(request, sealed), &evidence)))
            }
        }
    }

    /// A digest that this store cannot compare protects nothing, which the publisher may not expect.
    fn warn_of_uncompared_seal(&self, path: &ManifestPath, sealed: bool) {
        if !sealed && path.manifest.annotations.contains_key(MERGED_SHA512) {
            tracing::warn!(image.reference = self.image, "not compared: {}", why_unsealed(&path.manifest));
        }
    }

    fn look_up(&self, lookup: Lookup) -> Result<Option<ImageRecord>, PullError> {
        match lookup {
            Lookup::Request => match &self.request.pinned {
                Some(manifest) => self.stored(&self.request.choice.key(manifest)),
                None => self.by_name(&self.image),
            },
            Lookup::Resolved(top) => self.by_name(&self.pinned_name(&top)),
            Lookup::Manifest(manifest) => self.stored(&self.request.choice.key(&manifest)),
        }
    }

    /// Whether the reference has led to an image before, or the volume shows one.
    pub(super) fn is_known(&self) -> Result<bool, PullError> {
        if self.request.pinned.is_some() {
            return Ok(true);
        }
        let named =
            self.store.names().resolve(&self.name(&self.image), &self.request.platform).about(&self.image)?;
        Ok(named.is_some())
    }

    fn by_name(&self, reference: &str) -> Result<Option<ImageRecord>, PullError> {
        let name = self.name(reference);
        match self.store.names().resolve(&name, &self.request.platform).about(&self.image)? {
            Some(image) => self.stored(&image),
            None => Ok(None),
        }
    }

    /// The record of the image with this key, which stays with all that it names for as long as the request does.
    fn stored(&self, image: &Digest) -> Result<Option<ImageRecord>, PullError> {
        loop {
            // A combined image is nobody's to name: each of its members is asked for.
            let found = self.image_record(image).about(&self.image)?;
            let Some(record) = found.filter(|record| !record.is_combined()) else { return Ok(None) };
            // To be fetched again, with the caller's own credentials, as if it were not here.
            if self.heeds_quarantine() && self.store.quarantine_of(image).about(&self.image)?.is_some() {
                return Ok(None);
            }
            // Read after it was noted: no collection has taken it in between.
            if self.hold.keeps(&record) {
                return Ok(Some(record));
            }
            self.hold.keep_blocking(&Held::of(&record)).about(&self.image)?;
        }
    }

    /// Whoever looks at what is here sees what is damaged, too.
    fn heeds_quarantine(&self) -> bool {
        self.request.caller != Caller::Operator || self.request.policy != PullPolicy::Never
    }

    /// An error that says so if the image is here and in quarantine. Only to whom the image would have been given: others
    /// must not learn that it is here.
    pub(super) fn explained(&self, error: PullError) -> PullError {
        if matches!(error, PullError::StillDamaged { .. }) || !self.heeds_quarantine() {
            return error;
        }
        // What cannot be read now explains nothing.
        match self.quarantined() {
            Ok(Some(mark)) => PullError::Quarantined {
                image: self.image.clone(),
                object: mark.object,
                damage: mark.damage,
                source: Box::new(error),
            },
            Ok(None) | Err(_) => error,
        }
    }

    fn quarantined(&self) -> Result<Option<DamageMark>, PullError> {
        let marks = self.store.damaged().about(&self.image)?;
        if marks.is_empty() {
            return Ok(None);
        }
        let key = match &self.request.pinned {
            Some(manifest) => Some(self.request.choice.key(manifest)),
            None => {
                let (name, platform) = (self.name(&self.image), &self.request.platform);
                self.store.names().resolve(&name, platform).about(&self.image)?
            }
        };
        let Some(key) = key else { return Ok(None) };
        let mark = marks.into_iter().find(|mark| mark.images.contains(&key));
        Ok(mark.filter(|_| matches!(self.rights.is_granted(&key), Ok(true))))
    }

    fn image_record(&self, image: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        match self.request.policy {
            // A record that is not authentic is the answer where the image cannot be pulled again.
            PullPolicy::Never => self.store.images().get(image),
            PullPolicy::Always | PullPolicy::IfNotPresent => self.store.images().get_or_set_aside(image),
        }
    }

    /// What the node remembers for a reference: each choice leads to an image of its own.
    fn name(&self, reference: &str) -> String {
        match &self.request.choice {
            all if all.is_all() => reference.to_owned(),
            choice => format!("{reference} {choice}"),
        }
    }

    /// The reference with the digest that it resolves to.
    fn pinned_name(&self, top: &Digest) -> String {
        self.request.reference.clone().pinned(*top).to_string()
    }
}
