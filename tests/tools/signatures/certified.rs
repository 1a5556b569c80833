//! Keyless signatures: certificates, identities, logs and time stamps.

use std::process::Command;

use composefs_csi::trust::signature::{CertificateAuthorities, Identity, Matcher};

use super::sigstore::{Cosign, ISSUER, said, token};
use super::*;

const DEVELOPER: &str = "dev@example.test";
const WORKFLOW: &str = "https://ci.test/org/repo/.workflows/release@refs/heads/main";

fn sign_new(world: &World, config: &str, subject: &str, image: &str) -> Command {
    let mut command = Cosign::three().command_with(&world.sigstore);
    command.args(["sign", "--yes", "--identity-token", &token(subject), "--trusted-root"]);
    command.arg(world.sigstore.file("root.json")).arg("--signing-config").arg(world.sigstore.config(config));
    command.arg(image).env("HOME", "/nonexistent");
    command
}

fn sign_old(world: &World, fault: &str, subject: &str, image: &str) -> Command {
    let url = &world.sigstore.url;
    let mut command = Cosign::two().command_with(&world.sigstore);
    command.args(["sign", "--yes", "--identity-token", &token(subject), "--rekor-url", url, "--fulcio-url"]);
    command.arg(format!("{url}{fault}")).arg(image).env("HOME", "/nonexistent");
    command
}

fn made(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

fn exactly(subject: &str, issuer: &str) -> Vec<Identity> {
    vec![Identity { issuer: Matcher::Exact(issuer.into()), subject: Matcher::Exact(subject.into()) }]
}

fn like(subject: &str) -> Vec<Identity> {
    vec![Identity {
        issuer: Matcher::pattern("https://.*").unwrap(),
        subject: Matcher::pattern(subject).unwrap(),
    }]
}

fn by(root: &Arc<TrustedRoot>, identities: Vec<Identity>, logged: bool) -> Expectation {
    Expectation {
        authority: Authority::Identities { root: Arc::clone(root), identities },
        log: if logged { Log::Required(Arc::clone(root)) } else { Log::Ignored },
        formats: Formats::ALL,
        predicate_types: Vec::new(),
    }
}

/// What every certified signature must do and must not do.
fn check(world: &World, target: &Target, subject: &str, logged: bool) {
    let (claim, root) = (only(target.evidence()), world.root());
    let verify = |expectation: Expectation| verify(&claim, &expectation, &target.digests);
    let signed = verify(by(&root, exactly(subject, ISSUER), logged)).unwrap();
    assert_eq!(signed.signer, format!("{subject} from {ISSUER}"));
    verify(by(&root, exactly(subject, ISSUER), false)).unwrap();
    verify(by(&root, [exactly("nobody", ISSUER), like(".*")].concat(), logged)).unwrap();
    verify(by(&root, like(&format!("{}.*", &subject[..4])), logged)).unwrap();

    for (identities, why) in [
        (exactly("eve@example.test", ISSUER), "the policy wants eve@example.test"),
        (exactly(subject, "https://evil.test"), "from https://evil.test"),
        (like(&subject[..4]), "the policy wants /"),
        (like(&subject[4..]), "the policy wants /"),
        (Vec::new(), "the signature is by"),
    ] {
        refused(verify(by(&root, identities, logged)), why);
    }
    let email =
        vec![Identity { issuer: Matcher::Exact(ISSUER.into()), subject: Matcher::Email(subject.into()) }];
    assert_eq!(verify(by(&root, email, logged)).is_ok(), subject.contains('@'));

    let stranger = Sigstore::start();
    let foreign = Arc::new(TrustedRoot::parse(&stranger.read("root.json")).unwrap());
    refused(verify(by(&foreign, exactly(subject, ISSUER), logged)), "does not hold");
    refused(verify(by_keys(&[other_key().clone()], Log::Ignored)), "does not verify with key");
    let elsewhere = by(&root, exactly(subject, ISSUER), logged);
    refused(super::verify(&claim, &elsewhere, &[Digest::of(b"other")]), "not over this image");
    without_parts(world, &claim, target, subject, logged);
}

/// A root that lacks the log, its certificates' log, or the authorities, verifies less or nothing.
fn without_parts(world: &World, claim: &Claim, target: &Target, subject: &str, logged: bool) {
    let whole: serde_json::Value = serde_json::from_str(&world.sigstore.read("root.json")).unwrap();
    for part in ["tlogs", "certificateAuthorities", "timestampAuthorities", "ctlogs"] {
        let mut root = whole.clone();
        root[part] = serde_json::json!([]);
        let root = Arc::new(TrustedRoot::parse(&root.to_string()).unwrap());
        let result = verify(claim, &by(&root, exactly(subject, ISSUER), logged), &target.digests);
        let needed = match part {
            "tlogs" => logged,
            "timestampAuthorities" => !logged,
            "certificateAuthorities" => true,
            // A root without such logs asks for no promise of theirs.
            _ => false,
        };
        assert_eq!(result.is_err(), needed, "{part}: {result:?}");
    }
    // A promise by a log that is not the root's.
    let mut root = whole;
    let other = Sigstore::start();
    let other: serde_json::Value = serde_json::from_str(&other.read("root.json")).unwrap();
    root["ctlogs"] = other["ctlogs"].clone();
    let root = Arc::new(TrustedRoot::parse(&root.to_string()).unwrap());
    refused(verify(claim, &by(&root, exactly(subject, ISSUER), logged), &target.digests), "does not hold");
}

#[test]
fn bundles_with_a_log() {
    let world = World::start();
    for (name, subject) in [("mail", DEVELOPER), ("workflow", WORKFLOW)] {
        let target = world.push(name);
        made(sign_new(&world, "log", subject, &target.index));
        check(&world, &target, subject, true);
    }
}

#[test]
fn bundles_with_a_time_stamp_and_no_log() {
    let world = World::start();
    let target = world.push("stamped");
    made(sign_new(&world, "stamp", DEVELOPER, &target.manifest));
    check(&world, &target, DEVELOPER, false);
    let root = world.root();
    let logged = by(&root, exactly(DEVELOPER, ISSUER), true);
    refused(verify(&only(target.evidence()), &logged, &target.digests), "does not hold");
}

#[test]
fn old_signatures_with_certificates() {
    let world = World::start();
    for (name, subject) in [("mail", DEVELOPER), ("workflow", WORKFLOW)] {
        let target = world.push(name);
        made(sign_old(&world, "", subject, &target.index));
        check(&world, &target, subject, true);
    }
}

/// An authority may certify several names at once, and any of them may be the one that the policy wants.
#[test]
fn certificates_with_several_names() {
    let world = World::start();
    let (old, new) = (world.push("old"), world.push("new"));
    let names = "first@example.test dev@example.test last@example.test";
    made(sign_old(&world, "", names, &old.index));
    made(sign_new(&world, "log", names, &new.index));
    for target in [&old, &new] {
        let (claim, root) = (only(target.evidence()), world.root());
        let verify = |identities| verify(&claim, &by(&root, identities, true), &target.digests);
        for name in names.split(' ') {
            let email = vec![Identity {
                issuer: Matcher::Exact(ISSUER.into()),
                subject: Matcher::Email(name.into()),
            }];
            for identities in [exactly(name, ISSUER), like(name), email] {
                assert_eq!(verify(identities).unwrap().signer, format!("{name} from {ISSUER}"));
            }
        }
        refused(
            verify(exactly("eve@example.test", ISSUER)),
            "\"first@example.test\" and \"dev@example.test\"",
        );
        refused(verify(exactly(names, ISSUER)), "the policy wants");
        refused(verify(exactly(DEVELOPER, "https://evil.test")), "the policy wants");
    }
}

/// containers-policy's `fulcio`: CA certificates and Rekor keys, without a trusted root.
#[test]
fn bare_authorities_and_log_keys_are_a_root() {
    let world = World::start();
    let authorities = [CertificateAuthorities::parse(world.sigstore.read("fulcio.pem").as_bytes()).unwrap()];
    let logs = [PublicKey::parse(world.sigstore.read("rekor.pub").as_bytes()).unwrap()];
    let root = Arc::new(TrustedRoot::of(&authorities, &logs).unwrap());
    let (old, new) = (world.push("old"), world.push("new"));
    made(sign_old(&world, "", DEVELOPER, &old.manifest));
    made(sign_new(&world, "log", DEVELOPER, &new.manifest));
    for target in [old, new] {
        let claim = only(target.evidence());
        verify(&claim, &by(&root, exactly(DEVELOPER, ISSUER), true), &target.digests).unwrap();
        let other = Arc::new(TrustedRoot::of(&authorities, &[other_key().clone()]).unwrap());
        refused(
            verify(&claim, &by(&other, exactly(DEVELOPER, ISSUER), true), &target.digests),
            "does not hold",
        );
        let none = Arc::new(TrustedRoot::of(&authorities, &[]).unwrap());
        refused(verify(&claim, &by(&none, exactly(DEVELOPER, ISSUER), true), &target.digests), "lists none");
    }
}

#[test]
fn a_certificate_that_had_expired_when_it_was_used_is_refused() {
    let world = World::start();
    let (target, root) = (world.push("old"), world.root());
    made(sign_old(&world, "/expired", DEVELOPER, &target.manifest));
    for logged in [true, false] {
        let expectation = by(&root, exactly(DEVELOPER, ISSUER), logged);
        refused(verify(&only(target.evidence()), &expectation, &target.digests), "does not hold");
    }
    // Cosign 3 makes no such bundle.
    let refusal = sign_new(&world, "expired", DEVELOPER, &target.manifest).output().unwrap();
    assert!(said(&refusal).contains("integrated time outside certificate validity"), "{}", said(&refusal));
}

#[test]
fn an_authority_or_log_that_was_retired_before_is_refused() {
    let world = World::start();
    let (old, new) = (world.push("old"), world.push("new"));
    made(sign_old(&world, "", DEVELOPER, &old.manifest));
    made(sign_new(&world, "log", DEVELOPER, &new.manifest));
    for retired in
        ["/certificateAuthorities/0/validFor", "/tlogs/0/publicKey/validFor", "/ctlogs/0/publicKey/validFor"]
    {
        let mut root: serde_json::Value = serde_json::from_str(&world.sigstore.read("root.json")).unwrap();
        root.pointer_mut(retired).unwrap()["end"] = "2025-01-01T00:00:00Z".into();
        let root = Arc::new(TrustedRoot::parse(&root.to_string()).unwrap());
        for target in [&old, &new] {
            let expectation = by(&root, exactly(DEVELOPER, ISSUER), true);
            refused(verify(&only(target.evidence()), &expectation, &target.digests), "does not hold");
        }
    }
}

#[test]
fn the_log_entry_of_another_signature_does_not_count() {
    let world = World::start();
    let (one, two, root) = (world.push("one"), world.push("two"), world.root());
    made(sign_old(&world, "", DEVELOPER, &one.manifest));
    made(sign_old(&world, "", DEVELOPER, &two.manifest));
    let (Claim::Simple { bundle: entry, .. }, mut claim) = (only(two.evidence()), only(one.evidence()))
    else {
        panic!("a bundle");
    };
    let expectation = by(&root, exactly(DEVELOPER, ISSUER), true);
    verify(&claim, &expectation, &one.digests).unwrap();
    if let Claim::Simple { bundle, .. } = &mut claim {
        *bundle = entry;
    }
    refused(verify(&claim, &expectation, &one.digests), "does not hold");
    if let Claim::Simple { bundle, .. } = &mut claim {
        *bundle = None;
    }
    refused(verify(&claim, &expectation, &one.digests), "does not hold");
}
