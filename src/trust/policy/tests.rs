//! Policies as people write them, wrong ones, scopes, judgements, and files that change.

use std::path::Path;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;

use super::{Policy, PolicyError};

mod alternatives;
mod judging;
mod matching;
mod parsing;
mod reloading;
mod scopes;

/// The public half of a new key.
fn key() -> Vec<u8> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    EcKey::generate(&group).unwrap().public_key_to_pem().unwrap()
}

/// Parses with a machine on which `/keys/*.pub` are keys, and nothing else is there.
fn parse(text: &str) -> Result<Policy, PolicyError> {
    let key = key();
    Policy::parse(Path::new("/etc/p/policy.json"), text.as_bytes(), &mut |path| {
        let known = path.starts_with("/keys") && path.extension().is_some_and(|e| e == "pub");
        if known { Ok(key.clone()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    })
}

/// A policy with one list of requirements, the default.
fn parse_default(requirements: &str) -> Result<Policy, PolicyError> {
    parse(&format!(r#"{{"default": {requirements}}}"#))
}

/// A self-signed certificate, PEM.
fn certificate() -> Vec<u8> {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::x509::extension::BasicConstraints;
    use openssl::x509::{X509, X509Name};
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "a test's authority").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build().to_pem().unwrap()
}
