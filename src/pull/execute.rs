//! Carries out the plan of one request, step by step, and hands what it finds out back to the plan.
//!
//! Everything here runs with the caller's own credentials and outside the single flight, so that joining another
//! caller's pull never replaces being allowed to make one's own. The execution decides nothing: each arm does one
//! thing and returns one [`Answer`].
//!
//! What blocks is [`here`], and all of it in a row is one visit to a thread for blocking work: each visit waits twice for
//! the scheduler of a busy node, which is more than an image that is here takes otherwise.

mod here;
mod registry;

use std::sync::Arc;

use self::here::Here;
use super::error::About as _;
use super::evidence::Evidence;
use super::manifest_path::ManifestPath;
use super::outline::outline;
use super::plan::{Answer, Facts, Obstacle, Provided, Step, Terms};
use super::pull_task::{PullTask, PulledImage};
use super::pulls::Pulls;
use super::rights::Rights;
use super::{Caller, ImageRequest, PullError, Ready, blocking, recipe};
use crate::image::store::{Hold, ImageRecord};
use crate::image::tree::Rules;
use crate::oci::Source;
use crate::trust::Admission;

/// How far a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Until the image is here.
    Here,
    /// Until all is known of it, if it is not here.
    Missing,
}

/// How far it has come.
enum Reached {
    Here(Provided),
    Missing(Arc<ManifestPath>, Option<Admission>),
}

/// What was found of an image without fetching its content.
pub(super) enum Looked {
    /// It is here.
    Here(Box<Ready>),
    /// It is not, and the caller may have it.
    Missing {
        /// Its manifest.
        path: Arc<ManifestPath>,
        /// Why it may be mounted; `None` for callers that are not judged.
        admission: Option<Admission>,
        /// Where it is, with the caller's credentials.
        source: Arc<dyn Source>,
    },
}

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
        match self.go(require_digest, Until::Here).await? {
            Reached::Here(provided) => Ok(self.ready(provided)),
            // Asked for by the other only.
            Reached::Missing(..) => {
                Err(PullError::Lost { image: self.image, why: "its content was not fetched".to_owned() })
            }
        }
    }

    /// The same, but fetches no content: what leads to an image that is not here, once the caller may have it.
    ///
    /// # Errors
    /// As of [`Execution::run`].
    pub(super) async fn run_until_missing(mut self, require_digest: bool) -> Result<Looked, PullError> {
        match self.go(require_digest, Until::Missing).await? {
            Reached::Here(provided) => Ok(Looked::Here(Box::new(self.ready(provided)))),
            Reached::Missing(path, admission) => {
                Ok(Looked::Missing { path, admission, source: self.source()? })
            }
        }
    }

    async fn go(&mut self, require_digest: bool, until: Until) -> Result<Reached, PullError> {
        let (sees_all, kept) = (self.rights.sees_all(), self.pulls.kept());
        let terms = Arc::new(Terms::of(self.request, sees_all, require_digest, kept));
        let mut facts = Facts::default();
        loop {
            // Every answer is a fact that was missing, so the loop ends.
            let (here, terms) = (self.here(), Arc::clone(&terms));
            let step;
            (facts, step) = blocking(&self.image, move || here.proceed(&terms, facts)).await??;
            let answer = match step {
                Step::Ask(question) => self.ask(question).await?,
                Step::Fetch(path, _) if until == Until::Missing => {
                    return Ok(Reached::Missing(path, facts.admission().cloned()));
                }
                Step::Fetch(path, evidence) => self.fetch(path, evidence).await?,
                Step::Renew(record) => self.renew(record).await?,
                Step::Vary(record, rules) => self.vary(record, rules).await?,
                Step::Give(provided) => return Ok(Reached::Here(provided)),
                Step::Refuse(obstacle) => return Err(self.refusal(obstacle)),
                // Taken there.
                Step::Read(_) | Step::Record(_) | Step::Judge(_) => continue,
            };
            facts.note(answer);
        }
    }

    /// What is on this node, for a thread for blocking work. What is found there stays as long as the hold of now.
    fn here(&self) -> Here {
        Here::of(self.pulls.control(), &self.rights, &self.hold, self.request)
    }

    async fn fetch(&mut self, path: Arc<ManifestPath>, evidence: Arc<Evidence>) -> Result<Answer, PullError> {
        self.check_room(&path).await?;
        let (source, rights) = (self.source()?, self.rights.clone());
        let (image, choice) = (self.image.clone(), self.request.choice.clone());
        let task = PullTask { image, path, choice, evidence, source, rights };
        let PulledImage { record, fetched, hold } = self.pulls.pull(&Arc::new(task), self.request).await?;
        self.hold = hold;
        Ok(Answer::Fetched(Arc::new(record), fetched))
    }

    /// Refuses what only may be wanted, and would fill the disk. What others wait for goes on until the disk is full.
    async fn check_room(&mut self, path: &ManifestPath) -> Result<(), PullError> {
        let Caller::Prefetch { up_to, .. } = self.request.caller else { return Ok(()) };
        let sizes = recipe::layers(&path.manifest).map(|layer| layer.descriptor.size);
        let mut bytes = sizes.fold(0, u64::saturating_add);
        let store = Arc::clone(self.pulls.store());
        let space = blocking(&self.image, move || store.space()).await?.about(&self.image)?;
        if space.with(bytes).exceeds(up_to) && !self.request.choice.is_all() {
            // Where all of it would not fit, the config says how much the choice needs.
            let (source, choice, limits) = (self.source()?, &self.request.choice, self.pulls.image_limits());
            bytes = outline(&*source, &path.manifest, choice, limits, &self.image).await?.wanted_bytes;
        }
        if space.with(bytes).exceeds(up_to) {
            return Err(PullError::WouldFill { image: self.image.clone(), mib: bytes >> 20, up_to });
        }
        Ok(())
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

    fn refusal(&self, obstacle: Obstacle) -> PullError {
        let image = self.image.clone();
        match obstacle {
            Obstacle::Absent => PullError::Absent(image),
            Obstacle::Refused(refusal) => PullError::Refused(refusal),
            Obstacle::Seal(error) => PullError::Seal { image, source: Arc::new(error) },
            Obstacle::Unsealed(why) => PullError::Unsealed { image, why },
            Obstacle::Excess(source) => PullError::Excess { image, source },
        }
    }
}
