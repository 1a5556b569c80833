//! The provider against signatures that OpenSSL made and known answers.

use openssl::pkey::Private;
use openssl::sign::Signer;
use sigstore_verify::types::DerPublicKey;

use super::*;

const DATA: &[u8] = b"what is signed";

fn key(scheme: SigningScheme) -> PKey<Private> {
    let ec = |curve| {
        let key = EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap();
        PKey::from_ec_key(key).unwrap()
    };
    match scheme.key_algorithm() {
        KeyAlgorithm::EcdsaP256 => ec(Nid::X9_62_PRIME256V1),
        KeyAlgorithm::EcdsaP384 => ec(Nid::SECP384R1),
        KeyAlgorithm::Rsa => PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
        _ => PKey::generate_ed25519().unwrap(),
    }
}

fn sign(scheme: SigningScheme, key: &PKey<Private>) -> Vec<u8> {
    let Some(hash) = scheme.hash_algorithm() else {
        return Signer::new_without_digest(key).unwrap().sign_oneshot_to_vec(DATA).unwrap();
    };
    let mut signer = Signer::new(message_digest(hash).unwrap(), key).unwrap();
    if is_pss(scheme) {
        signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
    }
    signer.sign_oneshot_to_vec(DATA).unwrap()
}

#[test]
fn every_scheme_verifies_what_it_signed_and_nothing_else() {
    install();
    let schemes = [
        SigningScheme::EcdsaP256Sha256,
        SigningScheme::EcdsaP256Sha384,
        SigningScheme::EcdsaP384Sha256,
        SigningScheme::EcdsaP384Sha384,
        SigningScheme::Ed25519,
        SigningScheme::RsaPssSha256,
        SigningScheme::RsaPssSha384,
        SigningScheme::RsaPssSha512,
        SigningScheme::RsaPkcs1Sha256,
        SigningScheme::RsaPkcs1Sha384,
        SigningScheme::RsaPkcs1Sha512,
    ];
    for scheme in schemes {
        let key = key(scheme);
        let der = DerPublicKey::from_bytes(&key.public_key_to_der().unwrap());
        let parsed = sigstore_crypto::VerificationKey::from_spki_with_scheme(&der, scheme).unwrap();
        let (bits, signature) = (parsed.as_bytes(), sign(scheme, &key));
        let mut wrong = signature.clone();
        *wrong.last_mut().unwrap() ^= 1;
        OpenSsl.verify_raw(scheme, bits, DATA, &signature).unwrap();
        OpenSsl.verify_raw(scheme, bits, b"else", &signature).unwrap_err();
        OpenSsl.verify_raw(scheme, bits, DATA, &wrong).unwrap_err();
        OpenSsl.verify_raw(scheme, bits, DATA, &[]).unwrap_err();
        OpenSsl.verify_raw(scheme, &bits[1..], DATA, &signature).unwrap_err();

        let digest = match scheme.hash_algorithm() {
            Some(HashAlgorithm::Sha2256) => OpenSsl.sha256(DATA).to_vec(),
            Some(HashAlgorithm::Sha2384) => OpenSsl.sha384(DATA).to_vec(),
            _ => OpenSsl.sha512(DATA).to_vec(),
        };
        let prehashed = OpenSsl.verify_prehashed(scheme, bits, &digest, &signature);
        assert_eq!(prehashed.is_ok(), scheme.supports_prehashed(), "{scheme:?}: {prehashed:?}");
        OpenSsl.verify_prehashed(scheme, bits, &digest, &wrong).unwrap_err();
        OpenSsl.verify_prehashed(scheme, bits, &digest[1..], &signature).unwrap_err();
        for other in schemes.into_iter().filter(|other| *other != scheme) {
            OpenSsl.verify_raw(other, bits, DATA, &signature).unwrap_err();
        }
    }
}

#[test]
fn points_off_the_curve_are_no_keys() {
    let mut point = [1; 65];
    point[0] = 4;
    assert!(public_key(SigningScheme::EcdsaP256Sha256, &point).is_err());
    assert!(public_key(SigningScheme::MlDsa44, &point).is_err());
}

#[test]
fn hashes_in_pieces_are_hashes_of_the_whole() {
    for (algorithm, whole) in [
        (HashAlgorithm::Sha2256, OpenSsl.sha256(DATA).to_vec()),
        (HashAlgorithm::Sha2384, OpenSsl.sha384(DATA).to_vec()),
        (HashAlgorithm::Sha2512, OpenSsl.sha512(DATA).to_vec()),
    ] {
        let mut hash = OpenSsl.hash(algorithm).unwrap();
        hash.update(&DATA[..3]);
        hash.update(&DATA[3..]);
        assert_eq!(hash.finalize(), whole);
    }
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hex::encode(OpenSsl.sha256(b"abc")), known);
}
