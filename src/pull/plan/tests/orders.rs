//! The order of steps, spelled out for the requests that matter.

use std::sync::Arc;

use super::super::*;
use super::world::{admission, image, number, path, signed};
use crate::image::store::ImageRecord;
use crate::pull::evidence::Evidence;
use crate::pull::{Kept, PullPolicy};
use crate::trust::PolicyRefusal;

fn pod() -> Terms {
    Terms {
        policy: PullPolicy::IfNotPresent,
        by_digest: false,
        pinned: None,
        sees_all: false,
        heeds_policy: true,
        is_judged: true,
        is_preload: false,
        require_digest: false,
        is_mounted: true,
        is_partial: false,
        noexec: false,
        // What the images of these tests are built by.
        kept: Kept { special_files: false, privileges: true },
    }
}

fn label(step: &Step) -> &'static str {
    match step {
        Step::Read(Reading::Image(Lookup::Request)) => "read by request",
        Step::Read(Reading::Image(Lookup::Resolved(_))) => "read by resolved reference",
        Step::Read(Reading::Image(Lookup::Manifest(_))) => "read by manifest",
        Step::Read(Reading::Granted(..)) => "read grants",
        Step::Read(Reading::FromHere(..)) => "read origin",
        Step::Ask(Question::Top) => "ask for the reference",
        Step::Ask(Question::Confirm(..)) => "ask for confirmation",
        Step::Ask(Question::Path(_)) => "ask for the manifest",
        Step::Ask(Question::Signatures(_)) => "ask for signatures",
        Step::Ask(Question::NewerEvidence(..)) => "ask for newer evidence",
        Step::Judge(Case::Outright) => "judge the reference",
        Step::Judge(Case::WantsSignatures { .. }) => "judge whether signatures are wanted",
        Step::Judge(Case::Stored(_)) => "judge by stored evidence",
        Step::Judge(Case::Evidence { .. }) => "judge by evidence",
        Step::Record(NewRecord::Grant(_)) => "record the grant",
        Step::Record(NewRecord::Names { .. }) => "record names",
        Step::Record(NewRecord::Evidence(_)) => "record evidence",
        Step::Record(NewRecord::Preloaded { .. }) => "record the preload",
        Step::Record(NewRecord::Used(_)) => "record the use",
        Step::Fetch(..) => "fetch",
        Step::Renew(_) => "renew",
        Step::Vary(..) => "vary",
        Step::Give(_) => "give",
        Step::Refuse(_) => "refuse",
    }
}

/// Carries a request whose reference is not refused out with these answers, one for each step but the writes.
fn order(terms: &Terms, answers: &[Answer]) -> Vec<&'static str> {
    let (mut facts, mut labels) = (Facts::default(), Vec::new());
    if terms.heeds_policy {
        assert_eq!(label(&next(terms, &facts)), "judge the reference");
        facts.note(Answer::Outright(None));
    }
    loop {
        let step = next(terms, &facts);
        labels.push(label(&step));
        if matches!(step, Step::Give(_) | Step::Refuse(_)) {
            return labels;
        }
        let answer = match &step {
            Step::Record(entry) => Answer::Recorded(entry.clone()),
            _ => answers[labels.iter().filter(|label| !label.starts_with("record")).count() - 1].clone(),
        };
        facts.note(answer);
    }
}

fn stored(manifest: u8) -> Option<Arc<ImageRecord>> {
    Some(Arc::new(image(number(manifest), false, ImageRecord::BUILDER)))
}

#[test]
fn a_new_image_is_judged_before_it_is_fetched_and_recorded_after() {
    let path = Arc::new(path(number(1), ""));
    let evidence = Arc::new(Evidence::of(&path));
    let answers = [
        Answer::Image(Lookup::Request, None),
        Answer::Top(number(0)),
        Answer::Image(Lookup::Resolved(number(0)), None),
        Answer::Path(Arc::clone(&path)),
        Answer::Image(Lookup::Manifest(number(1)), None),
        Answer::Documents { evidence: Arc::clone(&evidence), wants_signatures: true },
        Answer::Signatures(signed(&evidence)),
        Answer::Verdict(Ok(admission("evidence"))),
        Answer::Fetched(Arc::new(image(number(1), false, ImageRecord::BUILDER)), 7),
    ];
    let expected = [
        "read by request",
        "ask for the reference",
        "read by resolved reference",
        "ask for the manifest",
        "read by manifest",
        "judge whether signatures are wanted",
        "ask for signatures",
        "judge by evidence",
        "fetch",
        "record the grant",
        "record names",
        "give",
    ];
    assert_eq!(order(&pod(), &answers), expected);
    let preload = Terms { is_preload: true, ..pod() };
    assert!(order(&preload, &answers).ends_with(&[
        "record the grant",
        "record the preload",
        "record names",
        "give"
    ]));
}

#[test]
fn what_no_policy_admits_is_not_asked_for() {
    let refusal = PolicyRefusal("rejected".to_owned());
    let mut facts = Facts::default();
    let staging = Terms { is_judged: false, ..pod() };
    for terms in [pod(), staging] {
        facts.note(Answer::Outright(Some(refusal.clone())));
        assert_eq!(next(&terms, &facts), Step::Refuse(Obstacle::Refused(refusal.clone())));
    }
    let operator = Terms { heeds_policy: false, is_judged: false, ..pod() };
    assert_eq!(label(&next(&operator, &Facts::default())), "read by request");
}

#[test]
fn an_image_without_a_grant_is_confirmed_by_its_registry() {
    let answers = [
        Answer::Image(Lookup::Request, stored(1)),
        Answer::Granted(Lookup::Request, false),
        Answer::Top(number(0)),
        Answer::FromHere(Lookup::Request, true),
        Answer::Confirmed(Lookup::Request, true),
        Answer::StoredVerdict(StoredVerdict::Admitted(admission("stored"))),
    ];
    let expected = [
        "read by request",
        "read grants",
        "ask for the reference",
        "read origin",
        "ask for confirmation",
        "record the grant",
        "judge by stored evidence",
        "record the use",
        "give",
    ];
    assert_eq!(order(&pod(), &answers), expected);
    // A reference that resolves to the manifest itself was the confirmation.
    let mut answers = answers.to_vec();
    answers[2] = Answer::Top(number(1));
    answers.remove(4);
    let steps = order(&pod(), &answers);
    assert!(!steps.contains(&"ask for confirmation") && steps.contains(&"record the grant"));
}

#[test]
fn a_refused_image_is_given_if_it_has_been_signed_since() {
    let evidence = Arc::new(Evidence::empty(number(1)));
    let refusal = PolicyRefusal("unsigned".to_owned());
    let refused = StoredVerdict::Refused { refusal, evidence: Arc::clone(&evidence), open: true };
    let mut answers = vec![
        Answer::Image(Lookup::Request, stored(1)),
        Answer::Granted(Lookup::Request, true),
        Answer::StoredVerdict(refused),
        Answer::NewerEvidence(Ok(signed(&evidence))),
        Answer::Verdict(Ok(admission("evidence"))),
    ];
    let expected = [
        "read by request",
        "read grants",
        "judge by stored evidence",
        "ask for newer evidence",
        "judge by evidence",
        "record evidence",
        "record the use",
        "give",
    ];
    assert_eq!(order(&pod(), &answers), expected);
    let never = Terms { policy: PullPolicy::Never, ..pod() };
    assert_eq!(order(&never, &answers), [&expected[..3], &["refuse"]].concat());
    answers[3] = Answer::NewerEvidence(Err("the registry is away".to_owned()));
    let mut facts = Facts::default();
    facts.note(Answer::Outright(None));
    answers[..4].iter().for_each(|answer| facts.note(answer.clone()));
    let why = "unsigned; and no newer signatures could be looked for: the registry is away";
    assert_eq!(next(&pod(), &facts), Step::Refuse(Obstacle::Refused(PolicyRefusal(why.to_owned()))));
}

#[test]
fn a_manifest_that_was_read_gives_the_image_that_others_have_pulled() {
    let answers = [
        Answer::Top(number(0)),
        Answer::Image(Lookup::Resolved(number(0)), None),
        Answer::Path(Arc::new(path(number(1), ""))),
        Answer::Image(Lookup::Manifest(number(1)), stored(1)),
        Answer::FromHere(Lookup::Manifest(number(1)), true),
        Answer::StoredVerdict(StoredVerdict::Admitted(admission("stored"))),
    ];
    let expected = [
        "ask for the reference",
        "read by resolved reference",
        "ask for the manifest",
        "read by manifest",
        "read origin",
        "record the grant",
        "record names",
        "judge by stored evidence",
        "record the use",
        "give",
    ];
    let always = Terms { policy: PullPolicy::Always, ..pod() };
    assert_eq!(
        order(&always, &answers),
        expected,
        "a tag may have moved, so what is known counts for nothing"
    );
}
