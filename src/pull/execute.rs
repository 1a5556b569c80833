//! Carries out the plan of one request, step by step, and hands what it finds out back to the plan.
//!
//! Everything here runs with the caller's own credentials and outside the single flight, so that joining another
//! caller's pull never replaces being allowed to make one's own. The execution decides nothing: each arm does one
//! thing and returns one [`Answer`].

mod records;
mod registry;

use std::sync::Arc;

use self::records::Records;
use super::evidence::Evidence;
use super::manifest_path::ManifestPath;
use super::plan::{Answer, Case, Facts, Obstacle, Provided, Step, Terms};
use super::pull_task::{PullTask, PulledImage};
use super::pulls::Pulls;
use super::rights::Rights;
use super::{ImageRequest, PullError, Ready, blocking};
use crate::image::seal::{MERGED_SHA512, why_unsealed};
use crate::image::store::{Hold, ImageRecord};
use crate::image::tree::Rules;
use crate::oci::Source;

/// One request on its way to an image.
pub(super) struct Execution<'a> {
    pulls: &'a Pulls,
    request: &'a ImageRequest,
    rights: Rights,
    /// Keeps what was found, from the look on.
    hold: Hold,
    /// The reference as the user wrote it, for messages.
    image: String,
    /// The registry or layout, once it has been asked.
    source: Option<Arc<dyn Source>>,
}

impl<'a> Execution<'a> {
    /// Prepares to serve a request. Asks nobody.
    ///
    /// # Errors
    /// The credentials for the reference cannot be used.
    pub(super) fn new(pulls: &'a Pulls, request: &'a ImageRequest) -> Result<Self, PullError> {
        let image = request.reference.to_string();
        let hold = pulls.store().hold();
        let rights = pulls.rights(request)?;
        Ok(Self { pulls, request, rights, hold, image, source: None })
    }

    /// Serves the request; `require_digest` refuses images that do not carry their composefs digest.
    ///
    /// # Errors
    /// The plan refuses it, or a step fails.
    pub(super) async fn run(mut self, require_digest: bool) -> Result<Ready, PullError> {
        let (sees_all, kept) = (self.rights.sees_all(), self.pulls.kept());
        let terms = Arc::new(Terms::of(self.request, sees_all, require_digest, kept));
        let mut facts = Facts::default();
        loop {
            // Every answer is a fact that was missing, so the loop ends.
            let (records, terms) = (self.records(), Arc::clone(&terms));
            let step;
            (facts, step) = blocking(&self.image, move || records.proceed(&terms, facts)).await??;
            let answer = match step {
                Step::Ask(question) => self.ask(question).await?,
                Step::Judge(case) => self.judge(case).await?,
                Step::Fetch(path, evidence) => self.fetch(path, evidence).await?,
                Step::Renew(record) => self.renew(record).await?,
                Step::Vary(record, rules) => self.vary(record, rules).await?,
                Step::Give(provided) => return Ok(self.ready(provided)),
                Step::Refuse(obstacle) => return Err(self.refusal(obstacle)),
                // Taken with the records.
                Step::Read(_) | Step::Record(_) => continue,
            };
            facts.note(answer);
        }
    }

    /// The store's records, for a thread for blocking work. What is found by them stays as long as the hold of now.
    fn records(&self) -> Records {
        Records::of(self.pulls.store(), &self.rights, &self.hold, self.request)
    }

    async fn judge(&self, case: Case) -> Result<Answer, PullError> {
        let (control, image) = (self.pulls.control(), self.image.as_str());
        match case {
            Case::Outright => Ok(Answer::Outright(control.refuses_outright(image, self.request).await?)),
            Case::WantsSignatures { path, sealed } => {
                self.warn_of_uncompared_seal(&path, sealed);
                let evidence = Arc::new(Evidence::of(&path));
                let subject = evidence.subject(self.request, sealed);
                let wants_signatures = control.wants_signatures(image, subject).await?;
                Ok(Answer::Documents { evidence, wants_signatures })
            }
            Case::Stored(record) => {
                let origin = self.rights.origin().name();
                let verdict = control.judge_stored(image, self.request, origin, &record).await?;
                Ok(Answer::StoredVerdict(verdict))
            }
            Case::Evidence { evidence, sealed } => {
                let subject = evidence.subject(self.request, sealed);
                Ok(Answer::Verdict(control.judge(image, subject, evidence).await?))
            }
        }
    }

    /// A digest that this store cannot compare protects nothing, which the publisher may not expect.
    fn warn_of_uncompared_seal(&self, path: &ManifestPath, sealed: bool) {
        if !sealed && path.manifest.annotations.contains_key(MERGED_SHA512) {
            tracing::warn!(image.reference = self.image, "not compared: {}", why_unsealed(&path.manifest));
        }
    }

    async fn fetch(&mut self, path: Arc<ManifestPath>, evidence: Arc<Evidence>) -> Result<Answer, PullError> {
        let (source, rights) = (self.source()?, self.rights.clone());
        let task = PullTask { image: self.image.clone(), path, evidence, source, rights };
        let PulledImage { record, fetched, hold } = self.pulls.pull(&Arc::new(task), self.request).await?;
        self.hold = hold;
        Ok(Answer::Fetched(Arc::new(record), fetched))
    }

    async fn renew(&mut self, record: Arc<ImageRecord>) -> Result<Answer, PullError> {
        let old = Arc::unwrap_or_clone(record);
        let renewed = self.pulls.renew(old, (&self.rights, &self.request.watch), &self.image).await?;
        self.hold = renewed.hold;
        Ok(Answer::Renewed(Arc::new(renewed.record)))
    }

    async fn vary(&mut self, record: Arc<ImageRecord>, rules: Rules) -> Result<Answer, PullError> {
        let record = Arc::unwrap_or_clone(record);
        let (varied, image) =
            self.pulls.vary(record, rules, (&self.rights, &self.request.watch), &self.image).await?;
        self.hold = varied.hold;
        Ok(Answer::Varied(Arc::new(varied.record), image))
    }

    fn ready(self, provided: Provided) -> Ready {
        let Provided { record, image, fetched, admission } = provided;
        Ready { record: Arc::unwrap_or_clone(record), image, hold: self.hold, fetched, admission }
    }

    fn refusal(self, obstacle: Obstacle) -> PullError {
        let image = self.image;
        match obstacle {
            Obstacle::Absent => PullError::Absent(image),
            Obstacle::Refused(refusal) => PullError::Refused(refusal),
            Obstacle::Seal(error) => PullError::Seal { image, source: Arc::new(error) },
            Obstacle::Unsealed(why) => PullError::Unsealed { image, why },
            Obstacle::Excess(source) => PullError::Excess { image, source },
        }
    }
}
