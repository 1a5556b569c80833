//! Formats, keys, logs, indexes and manifests: all that cosign can make with a key, and what must not pass for it.

use std::process::Command;

use composefs_csi::oci::reference::Version;
use composefs_csi::trust::signature::SIGNATURE_PREDICATE;

use super::sigstore::{Cosign, Key, said};
use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    /// cosign 2: `.sig`.
    Two,
    /// cosign 3 asked for the old format: `.sig`.
    ThreeOld,
    /// cosign 3: a bundle.
    Three,
}

impl Tool {
    fn sign(self, world: &World, key: &Key, logged: bool, image: &str) -> Command {
        let sigstore = &world.sigstore;
        let cosign = if self == Self::Two { Cosign::two() } else { Cosign::three() };
        let mut command = cosign.command_with(sigstore);
        command.args(["sign", "--yes", "--key"]).arg(key.private());
        if self == Self::Three {
            command.arg("--signing-config").arg(sigstore.config(if logged { "log" } else { "none" }));
            // With a root cosign verifies what it signed, and fails on its own Ed25519ph.
            if logged {
                command.arg("--trusted-root").arg(sigstore.file("root.json"));
            }
        } else {
            if self == Self::ThreeOld {
                command.args(["--new-bundle-format=false", "--use-signing-config=false"]);
            }
            match logged {
                true => command.arg("--rekor-url").arg(&sigstore.url),
                false => command.arg("--tlog-upload=false"),
            };
        }
        command.arg(image);
        // The directory of `cosign` goes with it; nothing in it is needed.
        command.env("HOME", "/nonexistent");
        command
    }

    /// Rekor's `hashedrekord` takes Ed25519 only as Ed25519ph, and cosign 2 signs with the pure one; its `dsse`
    /// verifies with SHA-256 and pure Ed25519 alone, where cosign 3 signs P-384 with SHA-384 and Ed25519 with
    /// Ed25519ph.
    fn cannot_log(self, kind: &str) -> bool {
        match self {
            Self::Two => kind == "ed25519",
            Self::ThreeOld => false,
            Self::Three => kind == "ed25519" || kind == "p384",
        }
    }
}

fn matrix(kind: &str) {
    let world = World::start();
    let (key, root) = (Key::generate(kind), world.root());
    let public = PublicKey::parse(&key.public()).unwrap();
    for tool in [Tool::Two, Tool::ThreeOld, Tool::Three] {
        for logged in [false, true] {
            for on_index in [false, true] {
                let case = format!("{tool:?}-{kind}-{logged}-{on_index}").to_lowercase();
                let target = world.push(&case);
                let image = if on_index { &target.index } else { &target.manifest };
                let output = tool.sign(&world, &key, logged, image).output().unwrap();
                if logged && tool.cannot_log(kind) {
                    assert!(
                        !output.status.success(),
                        "{case}: cosign can do this now; the table above is old"
                    );
                    continue;
                }
                assert!(output.status.success(), "{case}: {}", said(&output));
                let claim = only(target.evidence());
                assert_eq!(matches!(claim, Claim::Bundle { .. }), tool == Tool::Three, "{case}");
                passes(&case, &claim, &target, &public, on_index);
                negatives(&claim, &target, &public);
                let in_log = by_keys(std::slice::from_ref(&public), Log::Required(Arc::clone(&root)));
                let result = verify(&claim, &in_log, &target.digests);
                match logged {
                    true => drop(result.unwrap_or_else(|error| panic!("{case}: {error}"))),
                    false => refused(result, "without a transparency log's entry"),
                }
                if logged {
                    log_negatives(&world, &claim, &target, &public);
                }
            }
        }
    }
}

fn passes(case: &str, claim: &Claim, target: &Target, key: &PublicKey, on_index: bool) {
    // Among other keys, and whatever the claim says about logs.
    let expectation = by_keys(&[other_key().clone(), key.clone()], Log::Ignored);
    let signed =
        verify(claim, &expectation, &target.digests).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(signed.digest, target.digests[usize::from(on_index)], "{case}");
    assert_eq!(signed.signer, format!("key {}", key.fingerprint()));
    let repository = target.index.split('@').next().unwrap();
    match claim {
        Claim::Simple { .. } => {
            let named = signed.docker_reference.unwrap();
            assert!(named.starts_with(repository), "{case}: {named}");
        }
        Claim::Bundle { .. } => assert_eq!(signed.docker_reference, None),
    }
}

fn negatives(claim: &Claim, target: &Target, key: &PublicKey) {
    let keys = std::slice::from_ref(key);
    let other = by_keys(std::slice::from_ref(other_key()), Log::Ignored);
    refused(verify(claim, &other, &target.digests), "does not verify with key SHA256:");
    refused(verify(claim, &by_keys(&[], Log::Ignored), &target.digests), "the policy lists none");
    let elsewhere = [Digest::of(b"another image")];
    refused(verify(claim, &by_keys(keys, Log::Ignored), &elsewhere), "not over this image (sha256:");
    refused(verify(claim, &by_keys(keys, Log::Ignored), &[]), "not over this image");
    let simple = matches!(claim, Claim::Simple { .. });
    let mut wrong_format = by_keys(keys, Log::Ignored);
    wrong_format.formats = Formats { simple: !simple, bundle: simple };
    refused(verify(claim, &wrong_format, &target.digests), "which the policy does not accept");
    for altered in alterations(claim) {
        verify(&altered, &by_keys(keys, Log::Ignored), &target.digests).unwrap_err();
    }
}

/// The claim with its payload or its signature changed, cut and emptied.
fn alterations(claim: &Claim) -> Vec<Claim> {
    match claim {
        Claim::Simple { payload, signature, certificate, chain, bundle, timestamp } => {
            let with = |payload: String, signature: String| Claim::Simple {
                payload,
                signature,
                certificate: certificate.clone(),
                chain: chain.clone(),
                bundle: bundle.clone(),
                timestamp: timestamp.clone(),
            };
            vec![
                with(format!("{payload} "), signature.clone()),
                with(payload[..payload.len() - 1].to_owned(), signature.clone()),
                with(payload.replacen("cosign", "cosigm", 1), signature.clone()),
                with(payload.clone(), signature[..signature.len() - 4].to_owned()),
                with(payload.clone(), swapped(signature)),
                with(payload.clone(), String::new()),
            ]
        }
        Claim::Bundle { json } => {
            let bundle: serde_json::Value = serde_json::from_str(json).unwrap();
            let with = |pointer: &str, change: &dyn Fn(&str) -> String| {
                let mut bundle = bundle.clone();
                let text = bundle.pointer(pointer).unwrap().as_str().unwrap().to_owned();
                *bundle.pointer_mut(pointer).unwrap() = change(&text).into();
                Claim::Bundle { json: bundle.to_string() }
            };
            let (payload, signature) = ("/dsseEnvelope/payload", "/dsseEnvelope/signatures/0/sig");
            vec![
                with(payload, &swapped),
                with(payload, &|text| text[..text.len() - 4].to_owned()),
                with(payload, &|_| String::new()),
                with(signature, &swapped),
                with(signature, &|text| text[..text.len() - 4].to_owned()),
                with("/dsseEnvelope/payloadType", &|text| format!("{text}x")),
                with("/mediaType", &|text| text.replace("0.3", "0.1")),
                Claim::Bundle { json: json[..json.len() - 1].to_owned() },
                Claim::Bundle { json: json.replacen("\"mediaType\"", "\"mediaType\":\"\",\"mediaType\"", 1) },
            ]
        }
    }
}

/// Base64 with one character in the middle changed.
fn swapped(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

fn log_negatives(world: &World, claim: &Claim, target: &Target, key: &PublicKey) {
    let keys = std::slice::from_ref(key);
    let in_log = |root| by_keys(keys, Log::Required(root));
    // The bare key of the log is enough.
    let rekor = PublicKey::parse(world.sigstore.read("rekor.pub").as_bytes()).unwrap();
    let bare = Arc::new(TrustedRoot::of(&[], std::slice::from_ref(&rekor)).unwrap());
    verify(claim, &in_log(bare), &target.digests).unwrap();
    let other = Arc::new(TrustedRoot::of(&[], std::slice::from_ref(other_key())).unwrap());
    refused(verify(claim, &in_log(other), &target.digests), "does not hold");
    let nobody = Arc::new(TrustedRoot::of(&[], &[]).unwrap());
    refused(verify(claim, &in_log(nobody), &target.digests), "does not hold");
    // The promise of a log over another time.
    let moved = match claim.clone() {
        Claim::Simple { payload, signature, certificate, chain, bundle, timestamp } => {
            let bundle = bundle.map(|text| text.replacen("\"integratedTime\":1", "\"integratedTime\":2", 1));
            Claim::Simple { payload, signature, certificate, chain, bundle, timestamp }
        }
        Claim::Bundle { json } => {
            let mut bundle: serde_json::Value = serde_json::from_str(&json).unwrap();
            bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1700000000".into();
            Claim::Bundle { json: bundle.to_string() }
        }
    };
    assert_ne!(&moved, claim);
    refused(verify(&moved, &in_log(world.root()), &target.digests), "does not hold");
}

#[test]
fn p256() {
    matrix("p256");
}

#[test]
fn p384() {
    matrix("p384");
}

#[test]
fn rsa_2048() {
    matrix("rsa2048");
}

#[test]
fn rsa_4096() {
    matrix("rsa4096");
}

#[test]
fn ed25519() {
    matrix("ed25519");
}

#[test]
fn p521_in_the_old_format() {
    let world = World::start();
    let key = Key::generate("p521");
    let public = PublicKey::parse(&key.public()).unwrap();
    let target = world.push("p521");
    let output = Tool::Two.sign(&world, &key, false, &target.index).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let claim = only(target.evidence());
    passes("p521", &claim, &target, &public, true);
    negatives(&claim, &target, &public);
}

#[test]
fn an_attestation_is_no_signature() {
    let world = World::start();
    let key = Key::generate("p256");
    let public = PublicKey::parse(&key.public()).unwrap();
    let target = world.push("attested");
    let predicate = world.sigstore.file("predicate");
    std::fs::write(&predicate, r#"{"vulnerabilities":0}"#).unwrap();
    let mut attest = Cosign::three().command_with(&world.sigstore);
    attest.args(["attest", "--yes", "--type=https://scanner.test/report", "--key"]).arg(key.private());
    attest.arg("--trusted-root").arg(world.sigstore.file("root.json"));
    attest.arg("--signing-config").arg(world.sigstore.config("none")).arg("--predicate").arg(predicate);
    let output = attest.arg(&target.manifest).env("HOME", "/nonexistent").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let claim = only(target.evidence());
    let mut expectation = by_keys(&[public], Log::Ignored);
    refused(
        verify(&claim, &expectation, &target.digests),
        "is an attestation of type \"https://scanner.test/report\"",
    );
    expectation.predicate_types = vec!["https://scanner.test/report".into()];
    verify(&claim, &expectation, &target.digests).unwrap();
    // And then a signature is none of those.
    let output = Tool::Three.sign(&world, &key, false, &target.manifest).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let found = target.evidence().claims;
    assert_eq!(found.len(), 2);
    let passing = found.iter().filter(|claim| verify(claim, &expectation, &target.digests).is_ok());
    assert_eq!(passing.count(), 1);
}

/// A signature over the manifest alone has no predicate: it counts where `cosign sign` counts, and nowhere else.
#[test]
fn a_signed_manifest_is_no_attestation() {
    let world = World::start();
    let key = Key::generate("p256");
    let public = PublicKey::parse(&key.public()).unwrap();
    let target = world.push("message");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let manifest = Version::Digest(target.digests[0]);
    let manifest = runtime.block_on(target.source.manifest(&manifest)).unwrap();
    let (file, bundle) = (world.sigstore.file("manifest"), world.sigstore.file("bundle"));
    std::fs::write(&file, &manifest.bytes).unwrap();
    let mut sign = Cosign::three().command_with(&world.sigstore);
    sign.args(["sign-blob", "--yes", "--key"]).arg(key.private()).arg("--bundle").arg(&bundle);
    sign.arg("--trusted-root").arg(world.sigstore.file("root.json"));
    sign.arg("--signing-config").arg(world.sigstore.config("none")).arg(&file).env("HOME", "/nonexistent");
    let output = sign.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let json = std::fs::read_to_string(bundle).unwrap();
    assert!(json.contains("messageSignature"), "{json}");
    let claim = Claim::Bundle { json };
    let mut expectation = by_keys(&[public], Log::Ignored);
    for (types, holds) in [
        (vec![], true),
        (vec![SIGNATURE_PREDICATE], true),
        (vec!["https://scanner.test/report", SIGNATURE_PREDICATE], true),
        (vec!["https://scanner.test/report"], false),
    ] {
        expectation.predicate_types = types.iter().map(|&name| name.to_owned()).collect();
        let result = verify(&claim, &expectation, &target.digests);
        assert_eq!(result.is_ok(), holds, "{types:?}: {result:?}");
        if let Err(error) = result {
            assert!(error.to_string().contains("without a statement"), "{error}");
        }
    }
}

#[test]
fn old_and_new_signatures_do_not_hide_each_other() {
    let world = World::start();
    let (old, new) = (Key::generate("p256"), Key::generate("ed25519"));
    let target = world.push("both");
    for (tool, key, image) in [
        (Tool::Three, &new, &target.index),
        (Tool::Two, &old, &target.index),
        (Tool::Two, &new, &target.manifest),
    ] {
        let output = tool.sign(&world, key, false, image).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let evidence = target.evidence();
    assert_eq!(evidence.claims.len(), 3);
    for (key, many) in [(&old, 1), (&new, 2)] {
        let key = PublicKey::parse(&key.public()).unwrap();
        let expectation = by_keys(&[key], Log::Ignored);
        let passing =
            evidence.claims.iter().filter(|claim| verify(claim, &expectation, &target.digests).is_ok());
        assert_eq!(passing.count(), many);
    }
}
