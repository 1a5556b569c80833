//! The key that what is pushed is signed with: ECDSA on P-256 with SHA-256, which is what cosign makes by default and every
//! verifier of its signatures takes.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::{Signer, Verifier};

/// Bytes of a file with a key.
const FILE_MAX: u64 = 64 << 10;
/// The first lines of keys in a form of cosign's own, which OpenSSL cannot decrypt (scrypt and NaCl's secretbox).
const COSIGN: [&str; 2] =
    ["-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----"];

/// A private key. It is never shown.
pub struct SigningKey(PKey<Private>);

/// Why a file is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("the key {} cannot be read: {source}; name a file with a private key that this user may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is encrypted as only cosign does it.
    #[error(
        "the key {} is encrypted in cosign's own form, which is not read here; name the PEM file that `cosign import-key-pair` was given, or push without --key and sign with cosign", path.display()
    )]
    OfCosign {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted, and no password was given.
    #[error("the key {} is encrypted; set COSIGN_PASSWORD to its password", path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// It is none, or the password is another.
    #[error(
        "the key {} is no private key in PEM that can be read: {source}; check COSIGN_PASSWORD if it is encrypted", path.display()
    )]
    Pem {
        /// The file.
        path: PathBuf,
        /// OpenSSL's error.
        source: ErrorStack,
    },
    /// It is a key of another sort.
    #[error(
        "the key {} is not ECDSA on P-256, which all verifiers of cosign's signatures take; make one with `openssl ecparam -genkey -name prime256v1 -noout`", path.display()
    )]
    Sort {
        /// The file.
        path: PathBuf,
    },
}

impl SigningKey {
    /// Reads a key in PEM: SEC1 or PKCS#8, which may be encrypted with `password`. Blocking.
    ///
    /// # Errors
    /// The file cannot be read, or is no such key. No error has anything of the file's content.
    pub fn read(path: &Path, password: Option<&[u8]>) -> Result<Self, KeyError> {
        let at = || path.to_owned();
        let mut pem = Vec::new();
        let file = File::open(path).map_err(|source| KeyError::Read { path: at(), source })?;
        file.take(FILE_MAX).read_to_end(&mut pem).map_err(|source| KeyError::Read { path: at(), source })?;
        let text = String::from_utf8_lossy(&pem);
        if COSIGN.iter().any(|first| text.contains(first)) {
            return Err(KeyError::OfCosign { path: at() });
        }
        let mut asked = false;
        let read = PKey::private_key_from_pem_callback(&pem, |room| {
            asked = true;
            let fits = password.filter(|password| password.len() <= room.len());
            let password = fits.unwrap_or_default();
            room[..password.len()].copy_from_slice(password);
            Ok(password.len())
        });
        let key = match read {
            Ok(key) => key,
            Err(_) if asked && password.is_none() => return Err(KeyError::Encrypted { path: at() }),
            Err(source) => return Err(KeyError::Pem { path: at(), source }),
        };
        let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
        if curve != Some(Nid::X9_62_PRIME256V1) {
            return Err(KeyError::Sort { path: at() });
        }
        Ok(Self(key))
    }

    /// The signature of a document, in DER.
    ///
    /// # Errors
    /// OpenSSL's.
    pub(super) fn sign(&self, document: &[u8]) -> Result<Vec<u8>, ErrorStack> {
        Signer::new(MessageDigest::sha256(), &self.0)?.sign_oneshot_to_vec(document)
    }

    /// Whether a signature of a document is this key's.
    pub(super) fn has_signed(&self, document: &[u8], signature: &[u8]) -> bool {
        let verify = || Verifier::new(MessageDigest::sha256(), &self.0)?.verify_oneshot(signature, document);
        verify().unwrap_or(false)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::symm::Cipher;

    use super::*;

    fn generated(curve: Nid) -> EcKey<Private> {
        EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()
    }

    fn read(pem: &[u8], password: Option<&[u8]>) -> Result<SigningKey, KeyError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, pem).unwrap();
        SigningKey::read(&path, password)
    }

    #[test]
    fn keys_of_each_form_sign_and_are_not_shown() {
        let key = generated(Nid::X9_62_PRIME256V1);
        let pkey = PKey::from_ec_key(key.clone()).unwrap();
        let encrypted = pkey.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"word").unwrap();
        let sec1 = key.private_key_to_pem().unwrap();
        for (pem, password) in [
            (&sec1, None),
            (&pkey.private_key_to_pem_pkcs8().unwrap(), None),
            (&encrypted, Some(&b"word"[..])),
        ] {
            let key = read(pem, password).unwrap();
            let signature = key.sign(b"document").unwrap();
            assert!(key.has_signed(b"document", &signature) && !key.has_signed(b"other", &signature));
            assert_eq!(format!("{key:?}"), "SigningKey([redacted])");
        }
        assert!(matches!(read(&encrypted, None), Err(KeyError::Encrypted { .. })));
        assert!(matches!(read(&encrypted, Some(b"other")), Err(KeyError::Pem { .. })));
        let other = read(&sec1, None).unwrap().sign(b"document").unwrap();
        let stranger = read(&generated(Nid::X9_62_PRIME256V1).private_key_to_pem().unwrap(), None).unwrap();
        assert!(!stranger.has_signed(b"document", &other) && !stranger.has_signed(b"document", b"junk"));
    }

    #[test]
    fn what_is_no_such_key_says_so() {
        let p384 = generated(Nid::SECP384R1).private_key_to_pem().unwrap();
        assert!(matches!(read(&p384, None), Err(KeyError::Sort { .. })));
        for first in COSIGN {
            let error = read(format!("{first}\neyJrZGYiOnt9fQ==\n").as_bytes(), Some(b"")).unwrap_err();
            assert!(matches!(error, KeyError::OfCosign { .. }), "{error}");
        }
        assert!(matches!(read(b"no key", None), Err(KeyError::Pem { .. })));
        assert!(matches!(SigningKey::read(Path::new("/nonexistent"), None), Err(KeyError::Read { .. })));
    }
}
