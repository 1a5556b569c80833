//! Which keys are taken, and what they verify.

use ed25519_dalek::{Signer as _, SigningKey};
use openssl::ec::{EcGroup, EcKey};
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use openssl::sign::Signer;

use super::*;

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn public(key: &PKey<Private>) -> PublicKey {
    PublicKey::parse(&key.public_key_to_pem().unwrap()).unwrap()
}

fn sign(key: &PKey<Private>, hash: MessageDigest, message: &[u8]) -> Vec<u8> {
    Signer::new(hash, key).unwrap().sign_oneshot_to_vec(message).unwrap()
}

#[test]
fn each_key_verifies_with_its_own_hashes() {
    let (sha256, sha384, sha512) =
        (MessageDigest::sha256(), MessageDigest::sha384(), MessageDigest::sha512());
    for (key, taken, refused) in [
        (ec(Nid::X9_62_PRIME256V1), vec![sha256], vec![sha384, sha512, MessageDigest::sha1()]),
        (ec(Nid::SECP384R1), vec![sha256, sha384], vec![sha512, MessageDigest::sha1()]),
        (ec(Nid::SECP521R1), vec![sha256, sha512], vec![sha384, MessageDigest::sha1()]),
        (rsa(2048), vec![sha256], vec![sha384, MessageDigest::sha1(), MessageDigest::md5()]),
    ] {
        let public = public(&key);
        for hash in taken {
            let signature = sign(&key, hash, b"message");
            for likely in [Likely::Cosign2, Likely::Cosign3] {
                assert!(public.verifies(b"message", &signature, likely));
                assert!(!public.verifies(b"messagf", &signature, likely));
                assert!(!public.verifies(b"message", &signature[1..], likely));
                assert!(!public.verifies(b"message", &[], likely));
            }
        }
        for hash in refused {
            let signature = sign(&key, hash, b"message");
            for likely in [Likely::Cosign2, Likely::Cosign3] {
                assert!(!public.verifies(b"message", &signature, likely));
            }
        }
        let digest = Digest::of(b"message");
        let signature = sign(&key, sha256, b"message");
        assert!(public.verifies_digest(&digest, &signature));
        assert!(!public.verifies_digest(&Digest::of(b"other"), &signature));
    }
}

#[test]
fn the_likely_hash_is_tried_first_and_none_is_left_out() {
    let order = |key: &PKey<Private>, likely| match public(key).scheme {
        Scheme::Hashed(hashes) => in_order(hashes, likely).map(|hash| hash.type_()).collect::<Vec<_>>(),
        Scheme::Ed25519(_) => panic!("a key of another kind"),
    };
    for (curve, own) in [(Nid::SECP384R1, Nid::SHA384), (Nid::SECP521R1, Nid::SHA512)] {
        let key = ec(curve);
        assert_eq!(order(&key, Likely::Cosign2), [Nid::SHA256, own]);
        assert_eq!(order(&key, Likely::Cosign3), [own, Nid::SHA256]);
    }
    let key = ec(Nid::X9_62_PRIME256V1);
    for likely in [Likely::Cosign2, Likely::Cosign3] {
        assert_eq!(order(&key, likely), [Nid::SHA256]);
    }
}

#[test]
fn ed25519_signs_messages_and_their_sha512() {
    let secret = SigningKey::from_bytes(&[7; 32]);
    let key = PKey::public_key_from_raw_bytes(secret.verifying_key().as_bytes(), Id::ED25519).unwrap();
    let public = PublicKey::parse(&key.public_key_to_pem().unwrap()).unwrap();
    let pure = secret.sign(b"message").to_bytes();
    let hashed = secret.sign_prehashed(Sha512::new_with_prefix(b"message"), None).unwrap().to_bytes();
    let context = secret.sign_prehashed(Sha512::new_with_prefix(b"message"), Some(b"c")).unwrap().to_bytes();
    for likely in [Likely::Cosign2, Likely::Cosign3] {
        for signature in [pure, hashed] {
            assert!(public.verifies(b"message", &signature, likely));
            assert!(!public.verifies(b"messagf", &signature, likely));
        }
        assert!(!public.verifies(b"message", &context, likely));
    }
    assert!(!public.verifies_digest(&Digest::of(b"message"), &pure));
}

#[test]
fn weak_and_strange_keys_are_refused() {
    let pem = |key: PKey<Private>| key.public_key_to_pem().unwrap();
    for (pem, why) in [
        (pem(rsa(1024)), "1024 bits"),
        (pem(ec(Nid::SECP256K1)), "curve"),
        (pem(PKey::generate_x25519().unwrap()), "kind is not supported"),
        (pem(PKey::generate_ed448().unwrap()), "kind is not supported"),
        (ec(Nid::SECP384R1).private_key_to_pem_pkcs8().unwrap(), "private key"),
        ([pem(rsa(2048)), pem(rsa(2048))].concat(), "found 2"),
        (b"ssh-ed25519 AAAA".to_vec(), "found 0"),
        (b"".to_vec(), "found 0"),
        (vec![0xff; 10], "not PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec(), "malformed"),
    ] {
        let error = PublicKey::parse(&pem).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let zero = PKey::public_key_from_raw_bytes(&[0; 32], Id::ED25519).unwrap();
    PublicKey::parse(&zero.public_key_to_pem().unwrap()).unwrap_err();
}

#[test]
fn a_key_has_one_fingerprint_however_it_is_written() {
    let key = Rsa::generate(2048).unwrap();
    let (pkcs1, spki) = (key.public_key_to_pem_pkcs1().unwrap(), key.public_key_to_pem().unwrap());
    let (one, two) = (PublicKey::parse(&pkcs1).unwrap(), PublicKey::parse(&spki).unwrap());
    assert_eq!(one, two);
    let der = key.public_key_to_der().unwrap();
    assert_eq!(one.to_string(), format!("SHA256:{}", Digest::of(&der).hex()));
    assert_eq!(format!("{one:?}"), format!("PublicKey({one})"));
}
