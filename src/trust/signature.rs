//! Signatures: what is found ([`Claim`]), what is expected ([`Expectation`]), and what holds ([`Signed`]).
//!
//! [`verify`] decides from its arguments alone: no network, no files, and no clock, except that a log's time must not
//! lie in the future. A claim is foreign data. Nothing in it is believed before its signature has been verified.
//! Ambiguous claims (a key given twice, several subjects) are refused, because another reader may understand them
//! differently.
//!
//! Each format is parsed into a [`candidate::Candidate`], which [`check`] verifies against keys or certificates.
//! OpenSSL verifies signatures by keys. The `sigstore-verify` crate verifies certificates and logs, also with OpenSSL
//! ([`provider`]).

mod annotations;
mod bundle;
mod candidate;
mod check;
mod claim;
mod error;
mod expectation;
mod json;
mod key;
mod payload;
mod promise;
mod provider;
mod root;
mod simple;
mod statement;

pub(super) use bundle::MEDIA_TYPE as BUNDLE_MEDIA_TYPE;
pub use check::{Signed, verify};
pub(super) use claim::CLAIM_MAX;
pub use claim::Claim;
pub use error::SignatureError;
pub use expectation::{Authority, Expectation, Formats, Identity, Log, Matcher, SIGNATURE_PREDICATE};
pub use key::PublicKey;
pub use root::{CertificateAuthorities, TrustedRoot};
