//! Outcomes and messages. The verifier of signatures is a stand-in here: it reads its answer from the claim.

use super::{parse, parse_default};
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::trust::policy::decide::{Judgement, decide};
use crate::trust::signature::{Claim, SignatureError, Signed};
use crate::trust::{Claims, Subject};

pub(super) fn subject() -> Subject {
    let digest = Digest::of(b"the image");
    Subject {
        namespace: Some("team-a".to_owned()),
        reference: "r.io/a/b:1".parse().unwrap(),
        digests: vec![digest],
        target: Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest,
            size: 9,
            annotations: Default::default(),
        },
        sealed: false,
    }
}

/// A `.sig` that names `repository`, or does not hold for the reason in `signature`.
pub(super) fn simple(repository: &str, wrong: &str) -> Claim {
    Claim::Simple {
        payload: repository.to_owned(),
        signature: wrong.to_owned(),
        certificate: None,
        chain: None,
        bundle: None,
        timestamp: None,
    }
}

pub(super) fn bundle(wrong: &str) -> Claim {
    Claim::Bundle { json: wrong.to_owned() }
}

fn judge_as(subject: &Subject, requirements: &str, claims: &[Claim]) -> Judgement {
    let policy = parse_default(requirements).unwrap();
    let claims = Claims::all(claims.to_vec());
    decide(&policy.rule(&subject.reference, None), subject, &claims, &|claim, _, digests| {
        let (name, wrong) = match claim {
            Claim::Simple { payload, signature, .. } => (Some(payload.clone()), signature),
            Claim::Bundle { json } => (None, json),
        };
        match wrong.as_str() {
            "" => Ok(Signed { digest: digests[0], docker_reference: name, signer: "key 12ab".to_owned() }),
            wrong => Err(SignatureError::Invalid(wrong.to_owned())),
        }
    })
}

pub(super) fn judge(requirements: &str, claims: &[Claim]) -> Judgement {
    judge_as(&subject(), requirements, claims)
}

pub(super) const KEYED: &str =
    r#"{"type":"sigstoreSigned","keyPath":"/keys/a.pub","signedIdentity":{"type":"matchRepository"}}"#;
pub(super) const BUNDLE: &str = r#"{"type":"sigstoreBundle","keyPath":"/keys/a.pub","ignoreTlog":true}"#;

#[test]
fn all_requirements_must_hold() {
    let accept = r#"{"type":"insecureAcceptAnything"}"#;
    let good = [simple("r.io/a/b", "")];
    for (requirements, claims, admitted) in [
        (format!("[{accept}]"), &[][..], true),
        (r#"[{"type":"reject"}]"#.to_owned(), &good, false),
        (format!(r#"[{accept},{{"type":"reject"}}]"#), &good, false),
        (format!("[{KEYED}]"), &good, true),
        (format!("[{KEYED}]"), &[], false),
        (format!("[{accept},{KEYED}]"), &[], false),
        (format!("[{KEYED},{KEYED}]"), &good, true),
        (r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}]"#.to_owned(), &good, false),
    ] {
        let judged = judge(&requirements, claims);
        assert_eq!(judged.admits(), admitted, "{requirements}: {judged:?}");
        assert_eq!(judged.because().is_empty(), admitted, "{judged:?}");
    }
    assert_eq!(
        judge(&format!("[{accept},{KEYED}]"), &good).by(),
        format!("insecureAcceptAnything, sigstoreSigned by key 12ab over {}", subject().digests[0])
    );
}

#[test]
fn one_good_signature_among_bad_ones_will_do() {
    let claims = [
        simple("r.io/a/b", "it is by another key"),
        bundle("x"),
        simple("r.io/z", ""),
        simple("r.io/a/b", ""),
    ];
    assert!(judge(&format!("[{KEYED}]"), &claims).admits());
    assert!(!judge(&format!("[{KEYED}]"), &claims[..3]).admits());
}

#[test]
fn a_refusal_explains_every_signature() {
    let claims = [
        simple("r.io/a/b", "it is by another key"),
        simple("r.io/a/b", "it is by another key"),
        bundle(""),
        simple("r.io/other", ""),
    ];
    let why = judge(&format!("[{KEYED}]"), &claims).because();
    for words in [
        "sigstoreSigned (default[0]): 4 signatures were found",
        "(2 of them) it is by another key",
        "sigstoreBundle",
        "\"r.io/other\"",
        "signed by /keys/a.pub",
    ] {
        assert!(why.contains(words), "{words}: {why}");
    }
    let why = judge(&format!("[{KEYED}]"), &[]).because();
    assert!(why.contains("no signature of sha256:") && why.contains("/keys/a.pub"), "{why}");
}

#[test]
fn a_bundle_satisfies_only_who_asks_for_one() {
    assert!(!judge(&format!("[{KEYED}]"), &[bundle("")]).admits());
    assert!(judge(&format!("[{BUNDLE}]"), &[bundle("")]).admits());
    // Whoever takes bundles compares no repository, and takes the older format by the same keys.
    assert!(judge(&format!("[{BUNDLE}]"), &[simple("r.io/other", "")]).admits());
    let provenance = BUNDLE.replace('}', r#","predicateTypes":["https://slsa.dev/provenance/v1"]}"#);
    assert!(judge(&format!("[{provenance}]"), &[bundle("")]).admits());
    assert!(!judge(&format!("[{provenance}]"), &[simple("r.io/a/b", "")]).admits());
}

#[test]
fn composefs_requirements() {
    let accept = r#"{"type":"insecureAcceptAnything"}"#;
    let digest = format!(r#"[{accept},{{"type":"composefs","requireDigest":true}}]"#);
    assert!(judge(&digest, &[]).because().contains("composefs-csi seal"));
    let sealed = Subject { sealed: true, ..subject() };
    assert!(judge_as(&sealed, &digest, &[]).admits());
    let levels = format!(
        r#"[{accept},{{"type":"composefs","integrity":"mount"}},{{"type":"composefs","integrity":"read"}}]"#
    );
    assert_eq!(judge(&levels, &[]).integrity, Some(Integrity::Read));
    assert_eq!(judge(&format!("[{accept}]"), &[]).integrity, None);
    let keeps = judge(&format!(r#"[{accept},{{"type":"composefs","keepPrivileges":true}}]"#), &[]);
    assert!(keeps.admits() && keeps.keep_privileges && keeps.by().contains("privileges kept"), "{keeps:?}");
    assert!(!judge(&levels, &[]).keep_privileges);
    let not = judge(
        &format!(r#"[{accept},{{"type":"composefs","integrity":"fetch","keepPrivileges":false}}]"#),
        &[],
    );
    assert!(!not.keep_privileges);
}

#[test]
fn only_a_verified_signature_of_an_admitted_image_makes_it_signed() {
    let accept = r#"{"type":"insecureAcceptAnything"}"#;
    let good = [simple("r.io/a/b", "")];
    assert!(judge(&format!("[{accept},{KEYED}]"), &good).is_signed());
    for (requirements, claims) in [
        // It is there, and nobody has looked at it.
        (format!("[{accept}]"), &good[..]),
        (format!("[{KEYED}]"), &[]),
        (format!("[{KEYED}]"), &[simple("r.io/a/b", "it is by another key")]),
        (format!(r#"[{KEYED},{{"type":"reject"}}]"#), &good),
    ] {
        assert!(!judge(&requirements, claims).is_signed(), "{requirements}");
    }
}

#[test]
fn what_a_registry_serves_cannot_flood_or_forge_a_message() {
    let claims: Vec<_> =
        (0..500).map(|i| simple("r.io/a/b", &format!("reason {i}\n{}", "x".repeat(5000)))).collect();
    let why = judge(&format!("[{KEYED}]"), &claims).because();
    assert!(why.len() < 2000, "{}", why.len());
    assert!(!why.contains('\n'));
    assert!(why.contains("500 signatures") && why.contains("496 more reasons"), "{why}");
}

#[test]
fn signatures_are_wanted_where_they_can_help() {
    let wants = |requirements: &str| {
        let policy = parse_default(requirements).unwrap();
        policy.rule(&subject().reference, None).wants_signatures()
    };
    assert!(wants(&format!("[{KEYED}]")));
    assert!(wants(&format!(r#"[{{"type":"insecureAcceptAnything"}},{BUNDLE}]"#)));
    assert!(!wants(&format!(r#"[{KEYED},{{"type":"reject"}}]"#)));
    assert!(!wants(r#"[{"type":"insecureAcceptAnything"}]"#));
    let scoped =
        format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"r.io/a":[{KEYED}]}}}}}}"#);
    assert!(parse(&scoped).unwrap().rule(&subject().reference, None).wants_signatures());
}
