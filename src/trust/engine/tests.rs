//! The engine as a whole, with a real key and a real signature.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

use super::*;
use crate::oci::manifest::Descriptor;
use crate::trust::signature::Claim;

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// What `cosign sign --key` of version 2 makes.
fn sign(key: &PKey<Private>, repository: &str, digest: &Digest) -> Claim {
    let payload = serde_json::json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = BASE64.encode(signer.sign_oneshot_to_vec(payload.as_bytes()).unwrap());
    Claim::Simple { payload, signature, certificate: None, chain: None, bundle: None, timestamp: None }
}

fn subject(namespace: Option<&str>, reference: &str) -> Subject {
    let digest = Digest::of(b"an image");
    Subject {
        namespace: namespace.map(str::to_owned),
        reference: reference.parse().unwrap(),
        digests: vec![digest],
        target: Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest,
            size: 8,
            annotations: Default::default(),
        },
        sealed: false,
    }
}

fn without(without_policy: WithoutPolicy) -> TrustSettings {
    TrustSettings { without_policy, ..TrustSettings::default() }
}

#[test]
fn without_a_policy_the_flag_decides_and_the_refusal_says_how_to_begin() {
    let (subject, nothing) = (subject(Some("default"), "r.io/a/b:1"), Claims::default());
    let open = SignaturePolicyEngine::new(&without(WithoutPolicy::Accept), TrustMetrics::default());
    assert!(!open.wants_signatures(&subject));
    assert_eq!(open.admit(&subject, &nothing).unwrap().by, "accept");
    let closed = SignaturePolicyEngine::new(&TrustSettings::default(), TrustMetrics::default());
    let message = closed.admit(&subject, &nothing).unwrap_err().to_string();
    assert!(message.starts_with("image r.io/a/b:1 (sha256:"), "{message}");
    for words in
        ["--policy FILE", "--without-policy accept", r#""r.io/a/b":[{"type":"insecureAcceptAnything"}]"#]
    {
        assert!(message.contains(words), "{message}");
    }
    // The example is one.
    let (start, end) = (message.find('{').unwrap(), message.rfind('}').unwrap());
    let example =
        Policy::parse(Path::new("p"), &message.as_bytes()[start..=end], &mut |_| unreachable!()).unwrap();
    assert!(example.rule(&subject.reference, None).scope.contains("r.io/a/b"));
}

#[test]
fn a_signature_admits_until_the_key_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, public) = (directory.path().join("policy.json"), directory.path().join("cosign.pub"));
    let key = key();
    fs::write(&public, key.public_key_to_pem().unwrap()).unwrap();
    fs::write(
        &policy,
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"r.io/a":[
            {"type":"sigstoreSigned","keyPath":"cosign.pub","signedIdentity":{"type":"matchRepository"}}]}}}"#,
    )
    .unwrap();
    let engine = SignaturePolicyEngine::new(
        &TrustSettings { policy: Some(policy.clone()), ..TrustSettings::default() },
        TrustMetrics::default(),
    );
    let subject = subject(None, "r.io/a/b:1");
    assert!(engine.wants_signatures(&subject));
    let claims = Claims::all(vec![sign(&key, "r.io/a/b", &subject.digests[0])]);
    let first = engine.admit(&subject, &claims).unwrap();
    assert!(first.by.starts_with("sigstoreSigned by ") && first.by.contains("sha256:"), "{}", first.by);
    assert_eq!(engine.admit(&subject, &claims), Ok(first));

    // The memo knows this very claims only.
    let refused = |subject: &Subject, claims: Vec<Claim>| {
        engine.admit(subject, &Claims::all(claims)).unwrap_err().to_string()
    };
    let message = refused(&subject, vec![]);
    assert!(message.contains("no signature of sha256:"), "{message}");
    assert!(message.contains(r#"policy.json, transports.docker["r.io/a"]"#), "{message}");
    let message = refused(&subject, vec![sign(&key, "r.io/a/other", &subject.digests[0])]);
    assert!(message.contains("r.io/a/other"), "{message}");
    refused(&subject, vec![sign(&key, "r.io/a/b", &Digest::of(b"another image"))]);
    refused(&subject, vec![sign(&self::key(), "r.io/a/b", &subject.digests[0])]);
    let mut forged = sign(&key, "r.io/a/b", &subject.digests[0]);
    let Claim::Simple { payload, .. } = &mut forged else { unreachable!() };
    *payload = payload.replace("null", "{}");
    refused(&subject, vec![forged]);
    let elsewhere = Subject { reference: "r.io/b/b:1".parse().unwrap(), ..subject.clone() };
    assert!(refused(&elsewhere, claims.claims.clone()).contains("default"));

    // Revoked: the image is the same, the signature is the same, the key is not.
    fs::write(&public, self::key().public_key_to_pem().unwrap()).unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    refused(&subject, claims.claims.clone());
    fs::write(&policy, "{}").unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    let message = refused(&subject, claims.claims);
    assert!(message.contains("\"default\" is missing"), "{message}");
    assert!(!engine.wants_signatures(&subject));
}

#[test]
fn verifiers_and_policy_must_both_agree() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("team-check");
    let settings = |without_policy| TrustSettings {
        without_policy,
        verifier_dir: Some(directory.path().to_owned()),
        ..TrustSettings::default()
    };
    let subject = subject(None, "r.io/a/b:1");
    let open = SignaturePolicyEngine::new(&settings(WithoutPolicy::Accept), TrustMetrics::default());
    let message = open.admit(&subject, &Claims::default()).unwrap_err().to_string();
    assert!(message.contains("holds no program"), "{message}");
    fs::copy("/bin/true", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(open.admit(&subject, &Claims::default()).unwrap().by, "accept, verifier team-check");
    let closed = SignaturePolicyEngine::new(&settings(WithoutPolicy::Reject), TrustMetrics::default());
    assert!(closed.admit(&subject, &Claims::default()).is_err());
    let explained = closed.examine(&subject, &Claims::default());
    assert_eq!(explained.verdicts.len(), 1, "an explanation asks all the same");
    fs::remove_file(&program).unwrap();
    fs::copy("/bin/false", &program).unwrap();
    let message = open.admit(&subject, &Claims::default()).unwrap_err().to_string();
    assert!(message.contains("verifier team-check refused with exit code 1"), "{message}");
}

#[test]
fn the_directory_of_a_layout_is_the_one_behind_all_links() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir_all(base.join("trusted")).unwrap();
    fs::create_dir_all(base.join("evil/layout")).unwrap();
    std::os::unix::fs::symlink(base.join("evil/layout"), base.join("trusted/link")).unwrap();
    let of = |path: &str| layout_directory(&format!("oci:{}/{path}:1", base.display()).parse().unwrap());
    assert_eq!(of("trusted/link"), Some(base.join("evil/layout")));
    assert_eq!(of("trusted/../evil/layout"), Some(base.join("evil/layout")));
    assert_eq!(of("trusted/link/gone"), Some(base.join("evil/layout/gone")));
    assert_eq!(of("trusted/gone/too"), Some(base.join("trusted/gone/too")));
    assert_eq!(of("trusted/gone/../../evil"), None);
    assert_eq!(layout_directory(&"r.io/a:1".parse().unwrap()), None);
}

/// How many were admitted that would have been refused.
fn warned_of(metrics: &TrustMetrics) -> u64 {
    let registry = crate::metrics::MetricsRegistry::default();
    registry.add(metrics).unwrap();
    let text = registry.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("composefs_csi_admissions_total{reason=\"admitted_warned\"} "));
    line.unwrap().parse().unwrap()
}

#[test]
fn what_only_warns_admits_and_counts_what_it_would_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    fs::write(directory.path().join("a.pub"), key.public_key_to_pem().unwrap()).unwrap();
    let file = directory.path().join("policy.json");
    let signed = r#"{"type":"sigstoreSigned","keyPath":"a.pub","signedIdentity":{"type":"matchRepository"}}"#;
    let reject = r#"{"type":"reject"}"#;
    let policy = format!(
        r#"{{"default":[{reject}],"transports":{{"docker":{{"r.io/a":[{signed}],"r.io/w":[{{"type":"warnOnly"}},{signed}]}}}}}}"#
    );
    fs::write(&file, policy).unwrap();
    let settings = TrustSettings { policy: Some(file), ..TrustSettings::default() };
    let engines = [PolicyMode::Enforce, PolicyMode::Warn].map(|mode| {
        let metrics = TrustMetrics::default();
        (SignaturePolicyEngine::new(&TrustSettings { mode, ..settings.clone() }, metrics.clone()), metrics)
    });
    // By scope: what is signed, what enforces, what warns, what is rejected.
    for (reference, is_signed, [enforced, warned]) in [
        ("r.io/a/b:1", true, ["signed", "signed"]),
        ("r.io/a/b:1", false, ["refused", "warned"]),
        ("r.io/w/b:1", true, ["signed", "signed"]),
        ("r.io/w/b:1", false, ["warned", "warned"]),
        ("r.io/z/b:1", false, ["refused", "refused"]),
    ] {
        let subject = subject(None, reference);
        let repository = subject.reference.name();
        let claims = if is_signed { vec![sign(&key, &repository, &subject.digests[0])] } else { vec![] };
        for ((engine, metrics), expected) in engines.iter().zip([enforced, warned]) {
            let before = warned_of(metrics);
            let found = match engine.admit(&subject, &Claims::all(claims.clone())) {
                Ok(admission) if admission.by.contains("only warns") => "warned",
                Ok(_) => "signed",
                Err(_) => "refused",
            };
            assert_eq!(found, expected, "{reference} {engine:?}");
            assert_eq!(warned_of(metrics) - before, u64::from(expected == "warned"));
            let explained = engine.examine(&subject, &Claims::all(claims.clone()));
            assert_eq!(explained.warning.is_some(), expected == "warned", "{explained:?}");
            let outright = engine.refuses_outright(&subject.reference, Pods::Of(None));
            assert_eq!(outright.is_some(), reference.starts_with("r.io/z"), "{outright:?}");
        }
    }
}

#[test]
fn verifiers_that_refuse_only_warn_in_that_mode() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("team-check");
    fs::copy("/bin/false", &program).unwrap();
    let settings = TrustSettings {
        verifier_dir: Some(directory.path().to_owned()),
        mode: PolicyMode::Warn,
        ..without(WithoutPolicy::Accept)
    };
    let engine = SignaturePolicyEngine::new(&settings, TrustMetrics::default());
    let subject = subject(None, "r.io/a:1");
    assert!(engine.admit(&subject, &Claims::default()).is_ok());
    let explained = engine.examine(&subject, &Claims::default());
    assert!(explained.warning.unwrap().contains("verifier team-check refused"));
    // What cannot be asked refuses, as ever.
    fs::remove_file(program).unwrap();
    assert!(engine.admit(&subject, &Claims::default()).is_err());
}

/// What is kept for images that somebody vouches for is not kept for those that only pass.
#[test]
fn an_image_that_only_passes_keeps_no_privileges_and_counts_as_unsigned() {
    let directory = tempfile::tempdir().unwrap();
    let key = key();
    fs::write(directory.path().join("a.pub"), key.public_key_to_pem().unwrap()).unwrap();
    let file = directory.path().join("policy.json");
    let signed = r#"{"type":"sigstoreSigned","keyPath":"a.pub","signedIdentity":{"type":"matchRepository"}}"#;
    let keeps = r#"{"type":"composefs","keepPrivileges":true}"#;
    fs::write(&file, format!(r#"{{"default":[{{"type":"warnOnly"}},{signed},{keeps}]}}"#)).unwrap();
    let settings = TrustSettings { policy: Some(file), ..TrustSettings::default() };
    let engine = SignaturePolicyEngine::new(&settings, TrustMetrics::default());
    let subject = subject(None, "r.io/a/b:1");
    let good = sign(&key, "r.io/a/b", &subject.digests[0]);
    for (claims, vouched) in [(vec![good], true), (vec![], false)] {
        let admission = engine.admit(&subject, &Claims::all(claims)).unwrap();
        assert_eq!((admission.signed, admission.keep_privileges), (vouched, vouched), "{admission:?}");
    }
}
