//! Policies: containers-policy.json(5) and what this driver adds to it.
//!
//! Input: a policy. Held, by a lenient reader of the same text: the requirements that govern an image are those
//! of its longest scope; an image without any signature is admitted only where all of them ask for none or only warn;
//! errors are short.

#![no_main]

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::manifest::Descriptor;
use composefs_csi::oci::reference::Reference;
use composefs_csi::trust::policy::{Policy, decide};
use composefs_csi::trust::signature::verify;
use composefs_csi::trust::{Claims, Subject};
use libfuzzer_sys::fuzz_target;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use serde_json::Value;

const IMAGE: &str = "registry.example/team/app:1";
/// Its scopes, the longest first.
const SCOPES: [&str; 6] =
    [IMAGE, "registry.example/team/app", "registry.example/team", "registry.example", "*.example", ""];

static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    key.public_key_to_pem().expect("PEM")
});

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| {
    let digest = Digest::of(b"");
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    Subject {
        namespace: None,
        reference: IMAGE.parse::<Reference>().expect("a reference"),
        digests: vec![digest],
        target: Descriptor { media_type, digest, size: 1, annotations: Default::default() },
        sealed: false,
    }
});

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pub") => Ok(KEY.clone()),
        Some("json") => Ok(sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fuzz_target!(|text: &[u8]| {
    let policy = match Policy::parse(Path::new("/policies/policy.json"), text, &mut read) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(error.to_string().len() < 20_000, "{} bytes of an error", error.to_string().len());
            return;
        }
    };
    let lenient: Value = serde_json::from_slice(text).expect("what the strict reader reads");
    let docker = &lenient["transports"]["docker"];
    let governing = SCOPES.iter().find_map(|scope| docker.get(scope)).unwrap_or(&lenient["default"]);
    let types: Vec<&str> =
        governing.as_array().expect("a list").iter().map(|r| r["type"].as_str().expect("a type")).collect();
    assert!(!types.is_empty(), "nothing governs");

    let rule = policy.rule(&SUBJECT.reference, None);
    assert_eq!(rule.requirements.len(), types.len(), "{} governs instead of {governing}", rule.scope);
    let judgement = decide::decide(&rule, &SUBJECT, &Claims::default(), &verify);
    // What only warns softens signatures, and never a rejection.
    let warns = types.contains(&"warnOnly");
    let harmless = |name: &str| match name {
        "insecureAcceptAnything" | "composefs" | "warnOnly" => true,
        "reject" => false,
        _ => warns,
    };
    if judgement.admits() {
        assert!(types.iter().all(|name| harmless(name)), "admitted without a signature: {governing}");
        assert!(warns || types.contains(&"insecureAcceptAnything"), "admitted by nothing: {governing}");
    } else {
        assert!(
            !types.iter().all(|name| *name == "insecureAcceptAnything"),
            "refused: {}",
            judgement.because()
        );
    }
});
