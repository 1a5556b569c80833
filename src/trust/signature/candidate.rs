//! What the formats have in common: bytes, a signature over them, and what the bytes say is signed.

use super::annotations::Annotations;
use crate::oci::digest::Digest;

/// A parsed claim. Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) content: Content,
    pub(super) signature: Vec<u8>,
    pub(super) origin: Origin<'a>,
}

/// What is signed.
#[derive(Debug)]
pub(super) enum Content {
    /// A simple signing document, byte for byte.
    Simple(Vec<u8>),
    /// An in-toto statement in a DSSE envelope, and the bytes that DSSE signs for it (its PAE).
    Statement { payload: Vec<u8>, signed: Vec<u8> },
    /// The manifest itself, by its digest.
    Manifest(Digest),
}

/// Where the certificate, the log entries and the time stamps are.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    Simple(Annotations<'a>),
    Bundle(&'a str),
}
