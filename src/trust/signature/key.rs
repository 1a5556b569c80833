//! Public keys, and the hash that goes with each.

use std::fmt;

use ed25519_dalek::{Digest as _, Sha512, VerifyingKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::md::Md;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::sign::Verifier;

use super::SignatureError;
use crate::oci::digest::Digest;

/// RSA moduli outside of this are refused, in bits: too weak, or dear to verify.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// A key that signatures are verified with: ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits with
/// PKCS#1 v1.5, or Ed25519.
#[derive(Clone)]
pub struct PublicKey {
    key: PKey<Public>,
    scheme: Scheme,
    spki: Vec<u8>,
}

/// How a key signs. Cosign 2 hashes with SHA-256 under every curve; cosign 3 takes the hash of the curve's
/// strength, and signs with Ed25519ph where cosign 2 used pure Ed25519. A signer picks one of a key's own hashes,
/// none of which is weak, so any of them is taken.
#[derive(Clone)]
enum Scheme {
    /// The curve's own hash first.
    Hashed(&'static [fn() -> MessageDigest]),
    /// OpenSSL 3.0 has no Ed25519ph, which is why this key exists twice.
    Ed25519(VerifyingKey),
}

/// What probably made a signature: what is tried first, so that the common case costs one verification. It says
/// nothing about what is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likely {
    /// The writers of `.sig` tags.
    Cosign2,
    /// The writers of bundles.
    Cosign3,
}

const P256: Scheme = Scheme::Hashed(&[MessageDigest::sha256]);
const P384: Scheme = Scheme::Hashed(&[MessageDigest::sha384, MessageDigest::sha256]);
const P521: Scheme = Scheme::Hashed(&[MessageDigest::sha512, MessageDigest::sha256]);
const RSA: Scheme = Scheme::Hashed(&[MessageDigest::sha256]);

impl PublicKey {
    /// Parses one PEM block, `PUBLIC KEY` or `RSA PUBLIC KEY`.
    ///
    /// # Errors
    /// There is no such block, there are several, or the key is of a kind that is not verified.
    pub fn parse(pem: &[u8]) -> Result<Self, SignatureError> {
        let malformed = |what: &str| SignatureError::Malformed(what.to_owned());
        let text = std::str::from_utf8(pem).map_err(|_| malformed("a public key is not PEM text"))?;
        if text.contains("PRIVATE KEY-----") {
            return Err(malformed(
                "this is a private key; verification needs the public one (cosign public-key --key cosign.key), \
                 and the private key has no place on a node",
            ));
        }
        let blocks: Vec<_> = text.match_indices("-----BEGIN ").collect();
        let [(start, _)] = blocks[..] else {
            return Err(malformed(&format!(
                "a public key is one PEM block (-----BEGIN PUBLIC KEY-----), found {}",
                blocks.len()
            )));
        };
        let block = &text.as_bytes()[start..];
        let key = if block.starts_with(b"-----BEGIN RSA PUBLIC KEY-----") {
            openssl::rsa::Rsa::public_key_from_pem_pkcs1(block).and_then(PKey::from_rsa)
        } else {
            PKey::public_key_from_pem(block)
        };
        Self::of(key.map_err(|e| malformed(&format!("a public key is malformed: {}", openssl_says(&e))))?)
    }

    fn of(key: PKey<Public>) -> Result<Self, SignatureError> {
        let refused = |what: String| {
            SignatureError::Malformed(format!(
                "{what}; use ECDSA P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519"
            ))
        };
        let failed =
            |e| SignatureError::Malformed(format!("a public key is malformed: {}", openssl_says(&e)));
        let scheme = match key.id() {
            Id::EC => match key.ec_key().map_err(failed)?.group().curve_name() {
                Some(Nid::X9_62_PRIME256V1) => P256,
                Some(Nid::SECP384R1) => P384,
                Some(Nid::SECP521R1) => P521,
                _ => return Err(refused("the curve of an ECDSA key is not supported".into())),
            },
            Id::RSA if RSA_BITS.contains(&key.bits()) => RSA,
            Id::RSA => return Err(refused(format!("an RSA key has {} bits", key.bits()))),
            Id::ED25519 => {
                let raw = key.raw_public_key().map_err(failed)?;
                let strong = <[u8; 32]>::try_from(raw).ok();
                let strong = strong.and_then(|raw| VerifyingKey::from_bytes(&raw).ok());
                let strong = strong.filter(|key| !key.is_weak());
                Scheme::Ed25519(strong.ok_or_else(|| refused("an Ed25519 key is not a valid point".into()))?)
            }
            _ => return Err(refused("a public key's kind is not supported".into())),
        };
        let spki = key.public_key_to_der().map_err(failed)?;
        Ok(Self { key, scheme, spki })
    }

    /// `SHA256:` and the hexadecimal sha256 of the key's DER: what
    /// `openssl pkey -pubin -outform DER | sha256sum` prints.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", Digest::of(&self.spki).hex())
    }

    /// The key as DER `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Whether `signature` is this key's over `message`, by any of its hashes.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8], likely: Likely) -> bool {
        match &self.scheme {
            Scheme::Hashed(hashes) => in_order(hashes, likely).any(|hash| {
                // An error is OpenSSL's way to say that the signature is malformed.
                Verifier::new(hash, &self.key)
                    .and_then(|mut verifier| verifier.verify_oneshot(signature, message))
                    .unwrap_or(false)
            }),
            Scheme::Ed25519(key) => match likely {
                Likely::Cosign2 => {
                    self.verifies_pure(message, signature) || verifies_hashed(key, message, signature)
                }
                Likely::Cosign3 => {
                    verifies_hashed(key, message, signature) || self.verifies_pure(message, signature)
                }
            },
        }
    }

    /// Whether `signature` is this key's over bytes that have the sha256 `digest`. Never with Ed25519, which signs
    /// bytes or their sha512.
    pub(super) fn verifies_digest(&self, digest: &Digest, signature: &[u8]) -> bool {
        let valid = || -> Result<bool, ErrorStack> {
            let mut context = PkeyCtx::new(&self.key)?;
            context.verify_init()?;
            context.set_signature_md(Md::sha256())?;
            context.verify(digest.as_bytes(), signature)
        };
        matches!(self.scheme, Scheme::Hashed(_)) && valid().unwrap_or(false)
    }

    /// Pure Ed25519.
    fn verifies_pure(&self, message: &[u8], signature: &[u8]) -> bool {
        Verifier::new_without_digest(&self.key)
            .and_then(|mut verifier| verifier.verify_oneshot(signature, message))
            .unwrap_or(false)
    }
}

/// Ed25519ph.
fn verifies_hashed(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    ed25519_dalek::Signature::from_slice(signature).is_ok_and(|signature| {
        key.verify_prehashed_strict(Sha512::new_with_prefix(message), None, &signature).is_ok()
    })
}

/// All of `hashes`, the likely one first: SHA-256, the last of them, where cosign 2 signed.
fn in_order(hashes: &[fn() -> MessageDigest], likely: Likely) -> impl Iterator<Item = MessageDigest> {
    let (forwards, backwards) = match likely {
        Likely::Cosign2 => (&[][..], hashes),
        Likely::Cosign3 => (hashes, &[][..]),
    };
    forwards.iter().chain(backwards.iter().rev()).map(|hash| hash())
}

/// The first reason of OpenSSL's stack, without file names and numbers; also empties the thread's error queue.
fn openssl_says(stack: &ErrorStack) -> String {
    let reason = stack.errors().iter().find_map(|e| e.reason());
    reason.unwrap_or("OpenSSL gives no reason").to_owned()
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

#[cfg(test)]
mod tests;
