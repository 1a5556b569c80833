//! Signatures: cosign's `.sig` annotations and documents, and sigstore bundles v0.3.
//!
//! Input: one byte of choice, then a document that is signed here with the key that is trusted (the fuzzer does
//! not forge signatures), or a whole bundle or set of annotations that is not. Held: what passes says, read by
//! another parser, the digest that was asked for; an attestation does not pass; nothing that was not signed here
//! passes.

#![no_main]

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use composefs_csi::oci::digest::Digest;
use composefs_csi::trust::signature::{
    Authority, Claim, Expectation, Formats, Identity, Log, Matcher, PublicKey, SIGNATURE_PREDICATE, Signed,
    TrustedRoot, verify,
};
use libfuzzer_sys::fuzz_target;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::{Value, json};

static KEY: LazyLock<PKey<Private>> = LazyLock::new(|| {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
});

fn expectation(authority: Authority, log: Log) -> Expectation {
    Expectation { authority, log, formats: Formats::ALL, predicate_types: Vec::new() }
}

static BY_KEY: LazyLock<Expectation> = LazyLock::new(|| {
    let pem = KEY.public_key_to_pem().expect("PEM");
    expectation(Authority::Keys(vec![PublicKey::parse(&pem).expect("a key")]), Log::Ignored)
});

/// Anybody whom the public instance of sigstore certified: no seed is signed over the digests asked for.
static BY_IDENTITY: LazyLock<Expectation> = LazyLock::new(|| {
    let root = sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;
    let root = Arc::new(TrustedRoot::parse(root).expect("a trusted root"));
    let any = || Matcher::pattern(".*").expect("a pattern");
    let identities = vec![Identity { issuer: any(), subject: any() }];
    expectation(Authority::Identities { root: Arc::clone(&root), identities }, Log::Required(root))
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // The digest that the seeds are about.
    let digest = Digest::of(b"");
    match choice % 4 {
        0 => {
            let signature = STANDARD.encode(sign(bytes));
            if let Ok(signed) = verify(&simple(text, signature, [None; 4]), &BY_KEY, &[digest]) {
                let critical = read(bytes)["critical"].take();
                assert_eq!(critical["image"]["docker-manifest-digest"], digest.to_string());
                assert_eq!(
                    critical["identity"]["docker-reference"].as_str(),
                    signed.docker_reference.as_deref()
                );
                says(&signed, &digest);
            }
        }
        1 => {
            if let Ok(signed) = verify(&bundle(bytes), &BY_KEY, &[digest]) {
                let statement = read(bytes);
                assert_eq!(statement["predicateType"], SIGNATURE_PREDICATE, "an attestation passed");
                assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.hex());
                assert_eq!(statement["subject"].as_array().map(Vec::len), Some(1));
                says(&signed, &digest);
            }
        }
        2 => {
            let claim = Claim::Bundle { json: text.to_owned() };
            assert!(verify(&claim, &BY_KEY, &[digest]).is_err(), "a key's signature was forged");
            assert!(verify(&claim, &BY_IDENTITY, &[digest]).is_err(), "a certified signature was forged");
        }
        _ => {
            let mut parts = text.split("\n--\n");
            let (payload, signature) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let claim = simple(payload, signature.to_owned(), [(); 4].map(|()| parts.next()));
            assert!(verify(&claim, &BY_KEY, &[digest]).is_err(), "a key's signature was forged");
            assert!(verify(&claim, &BY_IDENTITY, &[digest]).is_err(), "a certified signature was forged");
        }
    }
});

fn says(signed: &Signed, digest: &Digest) {
    assert_eq!(signed.digest, *digest);
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("what the driver could read")
}

fn sign(message: &[u8]) -> Vec<u8> {
    let mut signer = Signer::new(MessageDigest::sha256(), &KEY).expect("a signer");
    signer.sign_oneshot_to_vec(message).expect("a signature")
}

fn simple(payload: &str, signature: String, rest: [Option<&str>; 4]) -> Claim {
    let [certificate, chain, bundle, timestamp] = rest.map(|part| part.map(str::to_owned));
    Claim::Simple { payload: payload.to_owned(), signature, certificate, chain, bundle, timestamp }
}

/// What `cosign sign --key` makes of a statement (DSSE's pre-authentication encoding is what is signed).
fn bundle(statement: &[u8]) -> Claim {
    const KIND: &str = "application/vnd.in-toto+json";
    let head = format!("DSSEv1 {} {KIND} {} ", KIND.len(), statement.len());
    let signature = STANDARD.encode(sign(&[head.as_bytes(), statement].concat()));
    let json = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}},
        "dsseEnvelope": {"payload": STANDARD.encode(statement), "payloadType": KIND, "signatures": [{"sig": signature}]},
    });
    Claim::Bundle { json: json.to_string() }
}
