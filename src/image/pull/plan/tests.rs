//! The plan against every answer that a store, a registry and a policy could give.

mod orders;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::image::pull::PullPolicy;
use crate::image::pull::evidence::Evidence;
use crate::image::pull::manifest_path::ManifestPath;
use crate::image::seal::{MERGED, Seal};
use crate::image::store::ImageRecord;
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::oci::manifest::{Descriptor, Manifest};
use crate::trust::signature::Claim;
use crate::trust::{Admission, Claims, Refusal};

/// More steps than any request needs.
const STEPS_MAX: usize = 24;

/// Everything that happened: each step with its answer, and how it ended.
#[derive(Debug)]
struct History {
    steps: Vec<(Step, Answer)>,
    end: Step,
}

/// Answers steps by the bytes of `choices`; when they run out, by zeros.
struct World {
    choices: Vec<u8>,
    taken: usize,
}

impl World {
    fn choose(&mut self, options: u8) -> u8 {
        let choice = self.choices.get(self.taken).copied().unwrap_or(0);
        self.taken += 1;
        choice % options
    }

    fn digest(&mut self) -> Digest {
        number(self.choose(3))
    }

    fn answer(&mut self, terms: &Terms, step: &Step) -> Answer {
        match step {
            Step::Read(reading) => self.read(terms, *reading),
            Step::Ask(question) => self.ask(question),
            Step::Judge(Case::WantsSignatures { path, .. }) => {
                let (evidence, wants_signatures) = (Arc::new(Evidence::of(path)), self.choose(2) == 0);
                Answer::Documents { evidence, wants_signatures }
            }
            Step::Judge(Case::Stored(record)) => Answer::StoredVerdict(match self.choose(3) {
                0 => StoredVerdict::Admitted(admission("stored")),
                open => StoredVerdict::Refused {
                    refusal: Refusal("unsigned".to_owned()),
                    evidence: Arc::new(Evidence::empty(record.manifest)),
                    open: open == 1,
                },
            }),
            Step::Judge(Case::Evidence { .. }) => Answer::Verdict(match self.choose(2) {
                0 => Ok(admission("evidence")),
                _ => Err(Refusal("still unsigned".to_owned())),
            }),
            Step::Record(entry) => Answer::Recorded(entry.clone()),
            Step::Fetch(path, _) => {
                let sealed = Seal::of(&path.manifest).unwrap().is_some();
                let builder = ImageRecord::BUILDER - u32::from(self.choose(2));
                Answer::Fetched(Arc::new(image(path.digest, sealed, builder)), 7)
            }
            Step::Renew(old) => {
                // The old image stays if a volume shows it.
                let builder = ImageRecord::BUILDER - u32::from(self.choose(2));
                Answer::Renewed(Arc::new(ImageRecord { builder, ..ImageRecord::clone(old) }))
            }
            Step::Give(_) | Step::Refuse(_) => panic!("{step:?} has no answer"),
        }
    }

    fn read(&mut self, terms: &Terms, reading: Reading) -> Answer {
        match reading {
            Reading::Image(lookup) => {
                let manifest = match (lookup, terms.pinned) {
                    (Lookup::Request, Some(pinned)) => pinned,
                    (Lookup::Manifest(manifest), _) => manifest,
                    _ => self.digest(),
                };
                let (sealed, builder) =
                    (self.choose(2) == 0, ImageRecord::BUILDER - u32::from(self.choose(2)));
                let is_here = self.choose(3) > 0;
                Answer::Image(lookup, is_here.then(|| Arc::new(image(manifest, sealed, builder))))
            }
            Reading::Granted(lookup, _) => Answer::Granted(lookup, self.choose(2) == 0),
            Reading::FromHere(lookup, _) => Answer::FromHere(lookup, self.choose(2) == 0),
        }
    }

    fn ask(&mut self, question: &Question) -> Answer {
        match question {
            Question::Top => Answer::Top(self.digest()),
            Question::Confirm(lookup, _) => Answer::Confirmed(*lookup, self.choose(2) == 0),
            Question::Path(top) => {
                let seal = ["", &"a".repeat(64), "malformed"][usize::from(self.choose(3))].to_owned();
                Answer::Path(Arc::new(path(*top, &seal)))
            }
            Question::Signatures(documents) => Answer::Signatures(signed(documents)),
            Question::NewerEvidence(_, evidence) => Answer::NewerEvidence(match self.choose(2) {
                0 => Ok(signed(evidence)),
                _ => Err("the registry is away".to_owned()),
            }),
        }
    }
}

fn number(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

fn admission(by: &str) -> Admission {
    Admission { policy: number(9), by: by.to_owned(), integrity: None }
}

fn signed(evidence: &Arc<Evidence>) -> Arc<Evidence> {
    let signatures = Claims { claims: vec![Claim::Bundle { json: "{}".to_owned() }] };
    let mut evidence = Evidence::clone(evidence);
    evidence.signatures = signatures;
    Arc::new(evidence)
}

fn image(manifest: Digest, sealed: bool, builder: u32) -> ImageRecord {
    ImageRecord {
        manifest,
        image: VerityDigest([1; 32]),
        image_size: 1,
        rules: Rules::Faithful,
        builder,
        sealed,
        layers: Vec::new(),
        platform: None,
        names: Vec::new(),
        inodes: 1,
        bytes: 1,
        created: 1,
    }
}

fn path(digest: Digest, seal: &str) -> ManifestPath {
    let annotations = BTreeMap::new();
    let descriptor = Descriptor { media_type: "a/b".to_owned(), digest, size: 1, annotations };
    let sealed = (!seal.is_empty()).then(|| (MERGED.to_owned(), seal.to_owned()));
    let (config, layers) = (descriptor.clone(), Vec::new());
    let manifest = Manifest { config, layers, annotations: sealed.into_iter().collect() };
    ManifestPath { manifest, digest, indexes: Vec::new(), documents: Vec::new(), target: descriptor }
}

/// Carries a request out, and sees that no step is taken twice.
fn run(terms: &Terms, choices: Vec<u8>) -> History {
    let (mut world, mut facts, mut steps) = (World { choices, taken: 0 }, Facts::default(), Vec::new());
    loop {
        let step = next(terms, &facts);
        if matches!(step, Step::Give(_) | Step::Refuse(_)) {
            return History { steps, end: step };
        }
        assert!(steps.iter().all(|(taken, _)| *taken != step), "{step:?} again after {steps:?}");
        assert!(steps.len() < STEPS_MAX, "no end after {steps:?}");
        let answer = world.answer(terms, &step);
        facts.note(answer.clone());
        steps.push((step, answer));
    }
}

impl History {
    fn answers(&self) -> impl DoubleEndedIterator<Item = &Answer> {
        self.steps.iter().map(|(_, answer)| answer)
    }

    fn any(&self, is: impl Fn(&Step) -> bool) -> bool {
        self.steps.iter().any(|(step, _)| is(step))
    }

    /// What happened before the first step of this sort, or before the end.
    fn before(&self, is: impl Fn(&Step) -> bool) -> History {
        let at = self.steps.iter().position(|(step, _)| is(step)).unwrap_or(self.steps.len());
        History { steps: self.steps[..at].to_vec(), end: self.end.clone() }
    }

    fn admission(&self) -> Option<&Admission> {
        self.answers().rev().find_map(|answer| match answer {
            Answer::StoredVerdict(StoredVerdict::Admitted(admission)) | Answer::Verdict(Ok(admission)) => {
                Some(admission)
            }
            _ => None,
        })
    }

    /// Whether the registry has shown this manifest to the caller: by the reference, by digest or in full.
    fn is_shown(&self, manifest: &Digest) -> bool {
        self.steps.iter().any(|(step, answer)| match (step, answer) {
            (_, Answer::Top(top)) => top == manifest,
            (Step::Ask(Question::Confirm(_, asked)), Answer::Confirmed(_, true)) => asked == manifest,
            (_, Answer::Path(path)) => path.digest == *manifest,
            _ => false,
        })
    }

    fn is_granted(&self, manifest: &Digest) -> bool {
        self.steps.iter().any(|(step, answer)| match (step, answer) {
            (Step::Read(Reading::Granted(_, of)), Answer::Granted(_, true)) => of == manifest,
            _ => false,
        })
    }

    fn is_from_here(&self, manifest: &Digest) -> bool {
        self.steps.iter().any(|(step, answer)| match (step, answer) {
            (Step::Read(Reading::FromHere(_, of)), Answer::FromHere(_, true)) => of == manifest,
            _ => false,
        })
    }

    /// What the store has for the request's own words.
    fn known(&self) -> Option<&ImageRecord> {
        self.answers().find_map(|answer| match answer {
            Answer::Image(Lookup::Request, record) => record.as_deref(),
            _ => None,
        })
    }
}

fn is_ask(step: &Step) -> bool {
    matches!(step, Step::Ask(_))
}

fn is_fetch(step: &Step) -> bool {
    matches!(step, Step::Fetch(..))
}

fn terms() -> impl Strategy<Value = Terms> {
    let policy = prop::sample::select(vec![PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never]);
    let pinned = prop::option::weighted(0.3, (0..3u8).prop_map(number));
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.7), any::<bool>(), any::<bool>());
    (policy, pinned, flags).prop_map(|(policy, pinned, flags)| {
        let (by_digest, sees_all, is_judged, is_preload, require_digest) = flags;
        Terms { policy, by_digest, pinned, sees_all, is_judged, is_preload, require_digest }
    })
}

fn history() -> impl Strategy<Value = (Terms, History)> {
    (terms(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(terms, choices)| {
        let history = run(&terms, choices);
        (terms, history)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Whatever the answers are, the request ends, and no step is taken twice ([`run`] asserts both).
    #[test]
    fn every_history_ends((_, history) in history()) {
        prop_assert!(matches!(history.end, Step::Give(_) | Step::Refuse(_)));
    }

    /// A stored image is given only for a reason that is on record, or if the registry that it came from has just
    /// shown it to the caller. An image that is fetched was shown to the caller first.
    #[test]
    fn nothing_is_given_without_access((_, history) in history()) {
        let Step::Give(given) = &history.end else { return Ok(()) };
        let manifest = given.record.manifest;
        let is_proven = history.is_from_here(&manifest) && history.is_shown(&manifest);
        let is_fetched = history.any(is_fetch) && history.before(is_fetch).is_shown(&manifest);
        prop_assert!(history.is_granted(&manifest) || is_proven || is_fetched, "{:?}", history);
    }

    /// A caller that is judged gets an image, and causes a fetch, only after the policy has admitted the image.
    #[test]
    fn nothing_is_given_or_fetched_without_admission((terms, history) in history()) {
        if terms.is_judged && history.any(is_fetch) {
            prop_assert!(history.before(is_fetch).admission().is_some(), "{:?}", history);
        }
        if let Step::Give(given) = &history.end {
            prop_assert_eq!(given.admission.as_ref(), history.admission());
            prop_assert_eq!(given.admission.is_some(), terms.is_judged);
        }
    }

    /// `Never` fetches nothing and looks for no signatures. It asks only what proves that the caller has access: a
    /// caller that sees everything learns at once that the image is absent.
    #[test]
    fn never_only_asks_for_access((terms, history) in history()) {
        if terms.policy != PullPolicy::Never {
            return Ok(());
        }
        prop_assert!(!history.any(is_fetch));
        prop_assert!(!history.any(|step| matches!(
            step,
            Step::Ask(Question::Signatures(_) | Question::NewerEvidence(..))
        )));
        if terms.sees_all && history.known().is_none() {
            prop_assert!(!history.any(is_ask), "{:?}", history);
            prop_assert_eq!(&history.end, &Step::Refuse(Obstacle::Absent));
        }
    }

    /// An image that is here and granted asks nobody, unless the policy refuses it: it may have been signed since.
    #[test]
    fn what_is_granted_asks_nobody((terms, history) in history()) {
        let Some(known) = history.known() else { return Ok(()) };
        let is_refused = |answer: &Answer| {
            matches!(answer, Answer::StoredVerdict(StoredVerdict::Refused { .. }))
        };
        if history.is_granted(&known.manifest)
            && matches!(history.steps[1].1, Answer::Granted(Lookup::Request, true))
            && !history.answers().any(is_refused)
        {
            prop_assert!(!history.any(is_ask), "{:?}", history);
            prop_assert!(terms.policy != PullPolicy::Always || terms.by_digest || terms.pinned.is_some());
        }
    }

    /// A caller that has no grant asks the registry before they learn anything, and always asks first what the
    /// reference means: a request for an image that is here looks like one for an image that is not.
    #[test]
    fn nobody_learns_what_others_have((terms, history) in history()) {
        let first = history.steps.iter().map(|(step, _)| step).find(|step| is_ask(step));
        let is_first_top = matches!(first, None | Some(Step::Ask(Question::Top | Question::NewerEvidence(..))));
        prop_assert!(is_first_top, "{:?}", first);
        if !terms.sees_all && !history.answers().any(|answer| matches!(answer, Answer::Granted(_, true))) {
            prop_assert!(history.any(|step| *step == Step::Ask(Question::Top)), "{:?}", history);
        }
    }

    /// Grants and names are recorded only after the registry has answered the caller, and evidence only if it helped.
    #[test]
    fn records_come_after_their_proof((_, history) in history()) {
        for (at, (step, _)) in history.steps.iter().enumerate() {
            let so_far = History { steps: history.steps[..at].to_vec(), end: history.end.clone() };
            match step {
                Step::Record(NewRecord::Grant(manifest)) => prop_assert!(so_far.is_shown(manifest)),
                Step::Record(NewRecord::Names { top, .. }) => {
                    prop_assert!(so_far.answers().any(|answer| *answer == Answer::Top(*top)));
                }
                Step::Record(NewRecord::Evidence(evidence)) => {
                    let newer = Answer::NewerEvidence(Ok(Arc::clone(evidence)));
                    prop_assert!(so_far.answers().any(|answer| *answer == newer));
                    prop_assert!(so_far.admission().is_some());
                }
                _ => {}
            }
        }
    }

    /// What is recorded on the way to an image is about that image, and an image that the registry has confirmed or
    /// that was fetched is recorded as granted.
    #[test]
    fn records_are_about_the_image_that_is_given((_, history) in history()) {
        let Step::Give(given) = &history.end else { return Ok(()) };
        let own = given.record.manifest;
        for (step, _) in &history.steps {
            let (Step::Record(NewRecord::Grant(manifest) | NewRecord::Used(manifest))
            | Step::Record(NewRecord::Names { manifest, .. } | NewRecord::Preloaded { manifest, .. })) = step
            else {
                continue;
            };
            prop_assert_eq!(*manifest, own);
        }
        let is_recorded = history.any(|step| *step == Step::Record(NewRecord::Grant(own)));
        prop_assert!(history.is_granted(&own) || is_recorded, "{:?}", history);
    }

    /// A volume that shows an image already gets no other, an image of another release is built again, and a node
    /// that demands a digest gives none without.
    #[test]
    fn what_is_given_is_what_was_wanted((terms, history) in history()) {
        let Step::Give(given) = &history.end else { return Ok(()) };
        if let Some(pinned) = terms.pinned {
            prop_assert_eq!(given.record.manifest, pinned);
        }
        if given.record.is_outdated() {
            prop_assert!(history.any(|step| matches!(step, Step::Renew(_))));
        }
        prop_assert!(given.record.sealed || !terms.require_digest);
    }

    /// The plan depends on what is known, not on the order in which it became known.
    #[test]
    fn the_order_of_facts_does_not_matter((terms, history) in history(), order in any::<u64>()) {
        let (mut answers, mut order) = (history.answers().cloned().collect::<Vec<_>>(), order);
        let mut facts = Facts::default();
        while !answers.is_empty() {
            let at = (order % answers.len() as u64) as usize;
            order = order.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            facts.note(answers.swap_remove(at));
        }
        prop_assert_eq!(next(&terms, &facts), history.end);
    }
}
