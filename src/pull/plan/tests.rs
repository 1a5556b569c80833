//! The plan against every answer that a store, a registry and a policy could give.

mod orders;
mod world;

use std::sync::Arc;

use proptest::prelude::*;
use world::{History, number, run};

use super::*;
use crate::image::tree::Powers;
use crate::pull::{Kept, PullPolicy};
use crate::trust::Admission;

fn is_ask(step: &Step) -> bool {
    matches!(step, Step::Ask(_))
}

fn is_fetch(step: &Step) -> bool {
    matches!(step, Step::Fetch(..))
}

fn terms() -> impl Strategy<Value = Terms> {
    let policy = prop::sample::select(vec![PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never]);
    let pinned = prop::option::weighted(0.3, (0..3u8).prop_map(number));
    let flags = (any::<bool>(), any::<bool>(), 0..6u8, any::<bool>(), any::<bool>());
    let forms = (prop::bool::weighted(0.7), any::<bool>(), any::<bool>(), any::<bool>());
    (policy, pinned, flags, forms).prop_map(|(policy, pinned, flags, forms)| {
        let (by_digest, sees_all, heeds, is_preload, require_digest) = flags;
        let (heeds_policy, is_judged) = (heeds > 0, heeds > 1);
        let (is_mounted, noexec, special_files, privileges) = forms;
        let kept = Kept { special_files, privileges };
        Terms {
            policy,
            by_digest,
            pinned,
            sees_all,
            heeds_policy,
            is_judged,
            is_preload,
            require_digest,
            is_mounted,
            is_partial: false,
            noexec,
            kept,
        }
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

    /// What the policy refuses whatever the image is ends at once: nobody is asked, and nothing is read.
    #[test]
    fn what_is_refused_outright_asks_nobody((terms, history) in history()) {
        let first = history.steps.first().map(|(step, _)| step);
        let outright = Step::Judge(Case::Outright);
        prop_assert_eq!(first == Some(&outright), terms.heeds_policy);
        let is_refused = |answer: &Answer| matches!(answer, Answer::Outright(Some(_)));
        if history.answers().any(is_refused) {
            prop_assert_eq!(history.steps.len(), 1);
            prop_assert!(matches!(history.end, Step::Refuse(Obstacle::Refused(_))));
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
        let is_refused = |answer: &Answer| matches!(answer, Answer::Outright(Some(_)));
        if history.answers().any(is_refused) {
            return Ok(());
        }
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
            && history.answers().any(|answer| *answer == Answer::Granted(Lookup::Request, true))
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
        let is_enough = |answer: &Answer| matches!(answer, Answer::Granted(_, true) | Answer::Outright(Some(_)));
        if !terms.sees_all && !history.answers().any(is_enough) {
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
            | Step::Record(NewRecord::Names { image: manifest, .. } | NewRecord::Preloaded { image: manifest, .. })) = step
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

    /// An image that is mounted has nothing in it that neither the node nor the policy keeps. A sealed one is given as
    /// it is, or refused.
    #[test]
    fn what_is_mounted_has_only_what_is_kept((terms, history) in history()) {
        let Step::Give(given) = &history.end else { return Ok(()) };
        let own = given.record.images().find(|own| own.image == given.image);
        prop_assert!(own.is_some(), "it is one of the record's: {:?}", given);
        if !terms.is_mounted {
            return Ok(());
        }
        let admitted = |is: fn(&Admission) -> bool| given.admission.as_ref().is_some_and(is);
        let keeps_privileges = terms.kept.privileges || admitted(|admission| admission.keep_privileges);
        if !given.record.sealed {
            let kept = Kept { privileges: keeps_privileges, ..terms.kept };
            prop_assert_eq!(own.map(|own| own.rules), Some(kept.rules(terms.noexec)));
        } else if terms.is_judged {
            let powers = given.record.powers.clone().unwrap_or_else(Powers::unknown);
            let is_signed = admitted(|admission| admission.signed);
            prop_assert!(powers.special_file.is_none() || terms.kept.special_files || is_signed);
            prop_assert!(powers.privileged_file.is_none() || keeps_privileges || is_signed);
            prop_assert!(powers.program.is_none() || !terms.noexec);
        }
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
