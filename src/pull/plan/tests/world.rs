//! A store, a registry and a policy that give every answer they could, and what became of a request in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::*;
use crate::image::seal::{MERGED, Seal};
use crate::image::store::{ImageRecord, Variant};
use crate::image::tree::{Powers, Rules};
use crate::image::verity::VerityDigest;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::manifest::{Descriptor, Manifest};
use crate::pull::evidence::Evidence;
use crate::pull::manifest_path::ManifestPath;
use crate::trust::signature::Claim;
use crate::trust::{Admission, Claims, PolicyRefusal};

/// More steps than any request needs.
const STEPS_MAX: usize = 24;

/// Everything that happened: each step with its answer, and how it ended.
#[derive(Debug)]
pub(super) struct History {
    pub steps: Vec<(Step, Answer)>,
    pub end: Step,
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
            Step::Judge(Case::Outright) => Answer::Outright(match self.choose(4) {
                3 => Some(PolicyRefusal("rejected".to_owned())),
                _ => None,
            }),
            Step::Judge(Case::WantsSignatures { path, .. }) => {
                let (evidence, wants_signatures) = (Arc::new(Evidence::of(path)), self.choose(2) == 0);
                Answer::Documents { evidence, wants_signatures }
            }
            Step::Judge(Case::Stored(record)) => Answer::StoredVerdict(match self.choose(3) {
                0 => StoredVerdict::Admitted(self.admission("stored")),
                open => StoredVerdict::Refused {
                    refusal: PolicyRefusal("unsigned".to_owned()),
                    evidence: Arc::new(Evidence::empty(record.manifest)),
                    open: open == 1,
                },
            }),
            Step::Judge(Case::Evidence { .. }) => Answer::Verdict(match self.choose(2) {
                0 => Ok(self.admission("evidence")),
                _ => Err(PolicyRefusal("still unsigned".to_owned())),
            }),
            Step::Record(entry) => Answer::Recorded(entry.clone()),
            Step::Fetch(path, _) => {
                let sealed = Seal::of(&path.manifest).unwrap().is_some();
                let builder = ImageRecord::BUILDER - u32::from(self.choose(2));
                let record = ImageRecord { powers: self.powers(), ..image(path.digest, sealed, builder) };
                Answer::Fetched(Arc::new(record), 7)
            }
            Step::Renew(old) => {
                // The old image stays if a volume shows it.
                let builder = ImageRecord::BUILDER - u32::from(self.choose(2));
                let powers = self.powers();
                Answer::Renewed(Arc::new(ImageRecord { builder, powers, ..ImageRecord::clone(old) }))
            }
            Step::Vary(record, rules) => {
                let variant = Variant {
                    rules: *rules,
                    builder: ImageRecord::BUILDER,
                    image: VerityDigest([2; 32]),
                    image_size: 1,
                };
                let record = ImageRecord { variants: vec![variant.clone()], ..ImageRecord::clone(record) };
                Answer::Varied(Arc::new(record), variant.image)
            }
            Step::Give(_) | Step::Refuse(_) => panic!("{step:?} has no answer"),
        }
    }

    fn admission(&mut self, by: &str) -> Admission {
        let (signed, keep_privileges) = (self.choose(2) == 1, self.choose(3) == 1);
        Admission { signed, keep_privileges, ..admission(by) }
    }

    /// What a sealed image may turn out to hold, if anybody has looked.
    fn powers(&mut self) -> Option<Powers> {
        let mut one = |path: &str| (self.choose(3) == 1).then(|| path.to_owned());
        let powers = Powers { special_file: one("/pipe"), privileged_file: one("/su"), program: one("/sh") };
        (self.choose(4) != 3).then_some(powers)
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
                let record = ImageRecord { powers: self.powers(), ..image(manifest, sealed, builder) };
                Answer::Image(lookup, is_here.then(|| Arc::new(record)))
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

pub(super) fn number(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

pub(super) fn admission(by: &str) -> Admission {
    Admission { policy: number(9), by: by.to_owned(), integrity: None, signed: false, keep_privileges: false }
}

pub(super) fn signed(evidence: &Arc<Evidence>) -> Arc<Evidence> {
    let signatures = Claims::all(vec![Claim::Bundle { json: "{}".to_owned() }]);
    let mut evidence = Evidence::clone(evidence);
    evidence.signatures = signatures;
    Arc::new(evidence)
}

pub(super) fn image(manifest: Digest, sealed: bool, builder: u32) -> ImageRecord {
    ImageRecord {
        manifest,
        choice: Choice::default(),
        image: VerityDigest([1; 32]),
        image_size: 1,
        rules: Rules::Faithful,
        builder,
        sealed,
        layers: Vec::new(),
        places: Vec::new(),
        platform: None,
        names: Vec::new(),
        inodes: 1,
        bytes: 1,
        created: 1,
        powers: None,
        variants: Vec::new(),
        members: Vec::new(),
    }
}

pub(super) fn path(digest: Digest, seal: &str) -> ManifestPath {
    let annotations = BTreeMap::new();
    let descriptor = Descriptor { media_type: "a/b".to_owned(), digest, size: 1, annotations };
    let sealed = (!seal.is_empty()).then(|| (MERGED.to_owned(), seal.to_owned()));
    let (config, layers) = (descriptor.clone(), Vec::new());
    let manifest = Manifest { config, layers, annotations: sealed.into_iter().collect(), artifact: None };
    ManifestPath { manifest, digest, indexes: Vec::new(), documents: Vec::new(), target: descriptor }
}

/// Carries a request out, and sees that no step is taken twice.
pub(super) fn run(terms: &Terms, choices: Vec<u8>) -> History {
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
    pub(super) fn answers(&self) -> impl DoubleEndedIterator<Item = &Answer> {
        self.steps.iter().map(|(_, answer)| answer)
    }

    pub(super) fn any(&self, is: impl Fn(&Step) -> bool) -> bool {
        self.steps.iter().any(|(step, _)| is(step))
    }

    /// What happened before the first step of this sort, or before the end.
    pub(super) fn before(&self, is: impl Fn(&Step) -> bool) -> History {
        let at = self.steps.iter().position(|(step, _)| is(step)).unwrap_or(self.steps.len());
        History { steps: self.steps[..at].to_vec(), end: self.end.clone() }
    }

    pub(super) fn admission(&self) -> Option<&Admission> {
        self.answers().rev().find_map(|answer| match answer {
            Answer::StoredVerdict(StoredVerdict::Admitted(admission)) | Answer::Verdict(Ok(admission)) => {
                Some(admission)
            }
            _ => None,
        })
    }

    /// Whether the registry has shown this manifest to the caller: by the reference, by digest or in full.
    pub(super) fn is_shown(&self, manifest: &Digest) -> bool {
        self.steps.iter().any(|(step, answer)| match (step, answer) {
            (_, Answer::Top(top)) => top == manifest,
            (Step::Ask(Question::Confirm(_, asked)), Answer::Confirmed(_, true)) => asked == manifest,
            (_, Answer::Path(path)) => path.digest == *manifest,
            _ => false,
        })
    }

    pub(super) fn is_granted(&self, manifest: &Digest) -> bool {
        self.steps.iter().any(|(step, answer)| match (step, answer) {
            (Step::Read(Reading::Granted(_, of)), Answer::Granted(_, true)) => of == manifest,
            _ => false,
        })
    }

    pub(super) fn is_from_here(&self, manifest: &Digest) -> bool {
        self.steps.iter().any(|(step, answer)| match (step, answer) {
            (Step::Read(Reading::FromHere(_, of)), Answer::FromHere(_, true)) => of == manifest,
            _ => false,
        })
    }

    /// What the store has for the request's own words.
    pub(super) fn known(&self) -> Option<&ImageRecord> {
        self.answers().find_map(|answer| match answer {
            Answer::Image(Lookup::Request, record) => record.as_deref(),
            _ => None,
        })
    }
}
