//! OpenSSL as the cryptography of the sigstore crates, in place of the aws-lc-rs that they bring by default.
//!
//! They verify with it; nothing here signs. Keys arrive as the bits inside a `SubjectPublicKeyInfo`, after
//! `sigstore-crypto` has checked that points are uncompressed and RSA moduli have 2048 to 8192 bits.

use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Verifier};
use sigstore_crypto::{
    CryptoProvider, Error, HashContext, KeyAlgorithm, Result, SigningScheme, install_default_provider,
};
use sigstore_verify::types::HashAlgorithm;

#[derive(Debug)]
struct OpenSsl;

/// Makes OpenSSL the provider of the process. Cheap, and may be called as often as wanted.
pub(super) fn install() {
    // The error says that there is one already, and only this module installs any.
    let _ = install_default_provider(&OpenSsl);
}

/// The state of a hash. OpenSSL can fail only where memory or a provider is missing; the trait has no way to say so
/// but at the end, where a digest of the wrong length fails whatever it is compared with.
struct Hash(Option<Hasher>);

impl HashContext for Hash {
    fn update(&mut self, data: &[u8]) {
        if self.0.as_mut().is_some_and(|hasher| hasher.update(data).is_err()) {
            self.0 = None;
        }
    }

    fn finalize(self: Box<Self>) -> Vec<u8> {
        let digest = self.0.and_then(|mut hasher| hasher.finish().ok());
        digest.map(|digest| digest.to_vec()).unwrap_or_default()
    }
}

fn unsupported(what: impl std::fmt::Debug) -> Error {
    Error::UnsupportedAlgorithm(format!("{what:?} is not supported"))
}

fn message_digest(algorithm: HashAlgorithm) -> Result<MessageDigest> {
    match algorithm {
        HashAlgorithm::Sha2256 => Ok(MessageDigest::sha256()),
        HashAlgorithm::Sha2384 => Ok(MessageDigest::sha384()),
        HashAlgorithm::Sha2512 => Ok(MessageDigest::sha512()),
        other => Err(unsupported(other)),
    }
}

fn point(curve: Nid, bytes: &[u8]) -> std::result::Result<PKey<Public>, ErrorStack> {
    let group = EcGroup::from_curve_name(curve)?;
    let point = EcPoint::from_bytes(&group, bytes, &mut *BigNumContext::new()?)?;
    let key = EcKey::from_public_key(&group, &point)?;
    key.check_key()?;
    PKey::from_ec_key(key)
}

fn public_key(scheme: SigningScheme, bytes: &[u8]) -> Result<PKey<Public>> {
    let key = match scheme.key_algorithm() {
        KeyAlgorithm::EcdsaP256 => point(Nid::X9_62_PRIME256V1, bytes),
        KeyAlgorithm::EcdsaP384 => point(Nid::SECP384R1, bytes),
        KeyAlgorithm::Rsa => Rsa::public_key_from_der_pkcs1(bytes).and_then(PKey::from_rsa),
        KeyAlgorithm::Ed25519 => PKey::public_key_from_raw_bytes(bytes, Id::ED25519),
        other => return Err(unsupported(other)),
    };
    key.map_err(|_| Error::InvalidKey(format!("malformed key for {}", scheme.name())))
}

fn is_pss(scheme: SigningScheme) -> bool {
    matches!(scheme, SigningScheme::RsaPssSha256 | SigningScheme::RsaPssSha384 | SigningScheme::RsaPssSha512)
}

/// An invalid signature, and one that OpenSSL cannot even parse, are the same here.
fn settle(scheme: SigningScheme, valid: std::result::Result<bool, ErrorStack>) -> Result<()> {
    match valid {
        Ok(true) => Ok(()),
        _ => Err(Error::Verification(format!("{} signature invalid", scheme.name()))),
    }
}

fn verify(scheme: SigningScheme, key: &PKey<Public>, data: &[u8], signature: &[u8]) -> Result<()> {
    let digest = scheme.hash_algorithm().map(message_digest).transpose()?;
    settle(
        scheme,
        (|| {
            let mut verifier = match digest {
                Some(digest) => Verifier::new(digest, key)?,
                None => Verifier::new_without_digest(key)?,
            };
            if is_pss(scheme) {
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
            }
            verifier.verify_oneshot(signature, data)
        })(),
    )
}

impl CryptoProvider for OpenSsl {
    fn hash(&self, algorithm: HashAlgorithm) -> Result<Box<dyn HashContext>> {
        let hasher = Hasher::new(message_digest(algorithm)?);
        let hasher = hasher.map_err(|e| Error::UnsupportedAlgorithm(format!("OpenSSL: {e}")))?;
        Ok(Box::new(Hash(Some(hasher))))
    }

    // The default implementations panic where a hash is missing.
    fn sha256(&self, data: &[u8]) -> [u8; 32] {
        openssl::sha::sha256(data)
    }

    fn sha384(&self, data: &[u8]) -> [u8; 48] {
        openssl::sha::sha384(data)
    }

    fn sha512(&self, data: &[u8]) -> [u8; 64] {
        openssl::sha::sha512(data)
    }

    fn verify_raw(&self, scheme: SigningScheme, key: &[u8], data: &[u8], signature: &[u8]) -> Result<()> {
        verify(scheme, &public_key(scheme, key)?, data, signature)
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let Some(algorithm) = scheme.hash_algorithm() else { return Err(unsupported(scheme)) };
        let (key, md) =
            (public_key(scheme, key)?, openssl::md::Md::from_nid(message_digest(algorithm)?.type_()));
        let Some(md) = md else { return Err(unsupported(algorithm)) };
        settle(
            scheme,
            (|| {
                let mut context = PkeyCtx::new(&key)?;
                context.verify_init()?;
                if is_pss(scheme) {
                    context.set_rsa_padding(Padding::PKCS1_PSS)?;
                    context.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                }
                context.set_signature_md(md)?;
                context.verify(digest, signature)
            })(),
        )
    }
}

#[cfg(test)]
mod tests;
