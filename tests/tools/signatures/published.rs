//! Bundles of the public sigstore instances, made by clients of others: the test data that `sigstore-verify` is
//! published with (Apache-2.0, the sigstore project), verified through our doors and on OpenSSL.

use std::fs;

use composefs_csi::trust::signature::{Identity, Matcher};

use super::sigstore::crate_source;
use super::*;

fn data(name: &str) -> Vec<u8> {
    let path = crate_source("sigstore-verify").join("test_data").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn public(name: &str) -> Arc<TrustedRoot> {
    let path = crate_source("sigstore-trust-root").join("src").join(name);
    Arc::new(TrustedRoot::parse(&fs::read_to_string(path).unwrap()).unwrap())
}

fn anybody(root: &Arc<TrustedRoot>) -> Expectation {
    Expectation {
        authority: Authority::Identities {
            root: Arc::clone(root),
            identities: vec![Identity {
                issuer: Matcher::pattern(".*").unwrap(),
                subject: Matcher::pattern(".*").unwrap(),
            }],
        },
        log: Log::Required(Arc::clone(root)),
        formats: Formats::ALL,
        predicate_types: Vec::new(),
    }
}

fn bundle(name: &str) -> Claim {
    Claim::Bundle { json: String::from_utf8(data(name)).unwrap() }
}

#[test]
fn a_signed_message_of_the_public_instance() {
    let root = public("trusted_root.json");
    let digest = [Digest::of(&data("bundles/cosign-v3-blob.txt"))];
    let claim = bundle("bundles/cosign-v3-blob.sigstore.json");
    let signed = verify(&claim, &anybody(&root), &digest).unwrap();
    assert_eq!(signed.digest, digest[0]);
    refused(verify(&claim, &anybody(&root), &[Digest::of(b"x")]), "not over this image");
    // Another instance, whose root lists no log.
    refused(verify(&claim, &anybody(&public("trusted_root_github.json")), &digest), "lists none");
    refused(verify(&claim, &anybody(&public("trusted_root_staging.json")), &digest), "does not hold");
}

#[test]
fn entries_of_rekor_2() {
    let root = public("trusted_root_staging.json");
    let digest = [Digest::of(&data("upstream/sigstore-python/staging-rekor-v2.txt"))];
    let claim = bundle("upstream/sigstore-python/staging-rekor-v2.txt.sigstore.json");
    verify(&claim, &anybody(&root), &digest).unwrap();
    refused(verify(&claim, &anybody(&public("trusted_root.json")), &digest), "does not hold");
}

#[test]
fn a_message_signed_with_a_key_and_logged() {
    let key = PublicKey::parse(&data("managed-key/key.pub")).unwrap();
    let digest = [Digest::of(&data("managed-key/artifact.txt"))];
    let claim = bundle("managed-key/bundle.sigstore.json");
    let keys = std::slice::from_ref(&key);
    let signed = verify(&claim, &by_keys(keys, Log::Ignored), &digest);
    // The bundle states its version or refuses to be one of ours; both are definite.
    match signed {
        Ok(signed) => {
            assert_eq!(signed.digest, digest[0]);
            refused(
                verify(&claim, &by_keys(&[other_key().clone()], Log::Ignored), &digest),
                "does not verify",
            );
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn what_is_known_to_be_bad_is_refused() {
    let root = public("trusted_root.json");
    for name in [
        "bundles/bundle_cve_2022_36056.txt.sigstore",
        "bundles/bundle_invalid_version.txt.sigstore",
        "bundles/bundle_no_cert_v1.txt.sigstore",
        "bundles/bundle_no_checkpoint.txt.sigstore",
        "bundles/bundle_no_log_entry.txt.sigstore",
        "bundles/bundle_v3_no_signed_time.txt.sigstore.json",
        "bundles/dsse-2sigs.sigstore.json",
        "invalid-ct-key_fail/bundle.sigstore.json",
    ] {
        verify(&bundle(name), &anybody(&root), &[Digest::of(b"")]).unwrap_err();
    }
    // An attestation of the public instance, which says nothing about leave to deploy.
    let claim = bundle("bundles/conda-attestation.sigstore.json");
    refused(verify(&claim, &anybody(&root), &[Digest::of(b"")]), "is an attestation of type");
}
