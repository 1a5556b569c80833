//! Alternatives, lists that only warn, and claims that are heard one after another.

use std::sync::Arc;

use proptest::prelude::*;

use super::judging::{BUNDLE, KEYED, bundle, judge, simple, subject};
use super::{parse, parse_default};
use crate::trust::Hearing as _;
use crate::trust::metrics::Reason;
use crate::trust::policy::PolicyHearing;

const ACCEPT: &str = r#"{"type":"insecureAcceptAnything"}"#;
const REJECT: &str = r#"{"type":"reject"}"#;
const WARN: &str = r#"{"type":"warnOnly"}"#;
const GPG: &str = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}"#;

fn any_of(alternatives: &[&str]) -> String {
    format!(r#"{{"type":"anyOf","requirements":[{}]}}"#, alternatives.join(","))
}

#[test]
fn one_alternative_is_enough() {
    let either = any_of(&[KEYED, BUNDLE]);
    for (claims, admitted) in [
        (vec![], false),
        (vec![simple("r.io/a/b", "")], true),
        (vec![bundle("")], true),
        (vec![bundle("it is by another key")], false),
        (vec![simple("r.io/other", "it is by another key")], false),
    ] {
        assert_eq!(judge(&format!("[{either}]"), &claims).admits(), admitted, "{claims:?}");
        assert!(!judge(&format!("[{either},{REJECT}]"), &claims).admits());
    }
    let by = judge(&format!("[{either}]"), &[bundle("")]).by();
    assert!(by.starts_with("anyOf (sigstoreBundle) by key 12ab over sha256:"), "{by}");
    let why = judge(&format!("[{either}]"), &[bundle("it is by another key")]);
    assert_eq!(why.reason(), Reason::Untrusted);
    let why = why.because();
    for words in
        ["anyOf (default[0]): none of its alternatives holds: sigstoreSigned: ", "; or sigstoreBundle: "]
    {
        assert!(why.contains(words), "{words}: {why}");
    }
    // One that is not supported here hides no other.
    assert!(judge(&format!("[{}]", any_of(&[GPG, BUNDLE])), &[bundle("")]).admits());
    assert_eq!(judge(&format!("[{either}]"), &[]).reason(), Reason::Unsigned);
}

#[test]
fn alternatives_are_all_of_signatures() {
    let integrity = r#"{"type":"composefs","integrity":"read"}"#;
    for wrong in [ACCEPT, REJECT, WARN, integrity, &any_of(&[KEYED]), r#"{"type":"other"}"#] {
        for list in [any_of(&[wrong]), any_of(&[KEYED, wrong])] {
            let error = parse_default(&format!("[{list}]")).unwrap_err().to_string();
            assert!(error.contains("default[0].requirements["), "{error}");
        }
    }
    for (wrong, word) in [
        (r#"{"type":"anyOf"}"#, "\"requirements\" is missing"),
        (r#"{"type":"anyOf","requirements":[]}"#, "is empty"),
        (r#"{"type":"anyOf","requirements":{}}"#, "a list"),
        (&any_of(&[KEYED]).replace("anyOf\"", "anyOf\",\"more\":1"), "\"more\" is not known"),
    ] {
        let error = parse_default(&format!("[{wrong}]")).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn warnings_are_for_signatures_alone() {
    let digest = r#"{"type":"composefs","requireDigest":true}"#;
    for (list, admitted, warned) in [
        (format!("[{WARN},{KEYED}]"), true, true),
        (format!("[{KEYED},{WARN}]"), true, true),
        (format!("[{WARN},{GPG}]"), true, true),
        (format!("[{WARN},{}]", any_of(&[KEYED, BUNDLE])), true, true),
        (format!("[{WARN},{KEYED},{REJECT}]"), false, false),
        (format!("[{WARN},{KEYED},{digest}]"), false, false),
        (format!("[{KEYED}]"), false, false),
        (format!("[{ACCEPT}]"), true, false),
    ] {
        let judged = judge(&list, &[]);
        assert_eq!((judged.admits(), judged.warning().is_some()), (admitted, warned), "{list}: {judged:?}");
        assert_eq!(judged.reason() == Reason::Warned, warned, "{list}");
    }
    let satisfied = judge(&format!("[{WARN},{KEYED}]"), &[simple("r.io/a/b", "")]);
    assert!(satisfied.admits() && satisfied.warning().is_none());
    assert_eq!(satisfied.reason(), Reason::Signed);
    for nothing_to_warn_of in
        [format!("[{WARN}]"), format!("[{WARN},{ACCEPT}]"), format!("[{WARN},{REJECT}]")]
    {
        assert!(parse_default(&nothing_to_warn_of).is_err(), "{nothing_to_warn_of}");
    }
}

#[test]
fn a_warning_stays_in_its_scope() {
    let policy = format!(
        r#"{{"default":[{REJECT}],"transports":{{"docker":{{"r.io/a":[{WARN},{KEYED}],"r.io/a/b":[{KEYED}],"":[{REJECT}]}}}}}}"#
    );
    let policy = parse(&policy).unwrap();
    let warns = |name: &str| policy.rule(&name.parse().unwrap(), None).only_warns;
    let refuses = |name: &str| policy.rule(&name.parse().unwrap(), None).refuses_all().is_some();
    assert!(warns("r.io/a/x:1") && !warns("r.io/a/b:1") && !warns("r.io/b:1") && !warns("oci:/srv/a"));
    assert!(!refuses("r.io/a/x:1") && !refuses("r.io/a/b:1") && refuses("r.io/b:1") && refuses("oci:/srv/a"));
    // Also where all rules only warn, what is rejected is rejected.
    let everywhere = policy.rule(&"r.io/b:1".parse().unwrap(), None).warning(true);
    assert!(everywhere.only_warns && everywhere.refuses_all().is_some());
}

/// A hearing by a policy with real keys, none of which has signed: for what it says of requirements alone.
fn hearing(requirements: &str) -> Option<PolicyHearing> {
    PolicyHearing::new(Arc::new(parse_default(requirements).unwrap()), &subject(), None)
}

#[test]
fn a_hearing_waits_for_signatures_where_they_help() {
    for (list, hears) in [
        (format!("[{KEYED}]"), true),
        (format!("[{ACCEPT},{KEYED}]"), true),
        (format!("[{}]", any_of(&[KEYED, GPG])), true),
        (format!("[{WARN},{KEYED}]"), true),
        (format!("[{}]", any_of(&[GPG])), false),
        (format!("[{KEYED},{REJECT}]"), false),
        (format!("[{ACCEPT}]"), false),
    ] {
        let heard = hearing(&list);
        assert_eq!(heard.is_some(), hears, "{list}");
        if let Some(mut heard) = heard {
            assert!(!heard.is_decided(), "{list}");
            assert!(!heard.hear(&simple("r.io/a/b", "")), "nobody has signed this");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Whatever of the requirements is satisfied, hearing and judgement agree on whether signatures are enough.
    #[test]
    fn a_hearing_is_decided_exactly_where_signatures_admit(
        shape in prop::collection::vec(prop::collection::vec(any::<bool>(), 1..4), 1..4),
    ) {
        let lists = shape.iter().map(|alternatives| match alternatives.len() {
            1 => KEYED.to_owned(),
            more => any_of(&vec![KEYED; more]),
        });
        let mut heard = hearing(&format!("[{}]", lists.collect::<Vec<_>>().join(","))).unwrap();
        heard.set_satisfied(shape.iter().flatten().copied().collect());
        let admits = shape.iter().all(|alternatives| alternatives.contains(&true));
        prop_assert_eq!(heard.is_decided(), admits);
    }
}
