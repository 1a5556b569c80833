//! An image in the store, as an operator names it: by reference, or by the digest that `ls` shows.

use std::collections::BTreeSet;

use super::args::Output;
use super::images::Wanted;
use crate::app::engine::Engine;
use crate::image::store::{Held, ImageRecord};
use crate::kind::Kind;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::pull::{PullPolicy, Ready};

/// The fewest hexadecimal digits of a digest. `ls` shows twelve.
const DIGITS_MIN: usize = 6;
/// All of them, of SHA-256.
const DIGITS: usize = 64;

/// An image in the store.
pub(super) enum Stored {
    /// By reference.
    Reference(Wanted),
    /// By digest.
    Digest(DigestPrefix),
}

/// A digest, or its beginning: lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DigestPrefix(String);

/// Why a digest leads to no image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum StoredError {
    /// It is nobody's.
    #[error("no image in the store has the digest sha256:{0}; `composefs-csi ls` lists them")]
    Nobody(String),
    /// It is the beginning of several.
    #[error("several images have a digest that begins with sha256:{0}: {1}; give more digits")]
    Several(String, String),
}

/// The hexadecimal digits of a digest or of its beginning; `None` of everything else.
pub(super) fn digits(text: &str) -> Option<String> {
    DigestPrefix::parse(text).map(|digest| digest.0)
}

impl StoredError {
    /// What sort of failure this is.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Nobody(_) => Kind::NotFound,
            Self::Several(..) => Kind::Invalid,
        }
    }
}

impl DigestPrefix {
    /// `[@][sha256:]DIGITS`. No reference has that form, since it begins with a registry's name and a slash.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('@').unwrap_or(text);
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let fits = (DIGITS_MIN..=DIGITS).contains(&digits.len()) && hexadecimal;
        fits.then(|| Self(digits.to_ascii_lowercase()))
    }

    fn begins(&self, digest: &Digest) -> bool {
        digest.hex().starts_with(&self.0)
    }

    /// Whether it is the image's own digest. A part of an image has one, too.
    fn is_of(&self, record: &ImageRecord) -> bool {
        self.begins(&record.key()) || record.choice.is_all() && self.names(record)
    }

    /// Whether it is the digest of the image's manifest, or of an index by which the image was pulled.
    fn names(&self, record: &ImageRecord) -> bool {
        let pulled_as = |name: &String| {
            name.rsplit_once("@sha256:").is_some_and(|(_, digits)| digits.starts_with(&self.0))
        };
        self.begins(&record.manifest) || record.names.iter().any(pulled_as)
    }

    fn only(&self, found: &BTreeSet<Digest>) -> Result<Digest, StoredError> {
        let mut all = found.iter();
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(*one),
            (None, _) => Err(StoredError::Nobody(self.0.clone())),
            _ => {
                let all: Vec<_> = found.iter().map(Digest::to_string).collect();
                Err(StoredError::Several(self.0.clone(), all.join(", ")))
            }
        }
    }
}

impl Stored {
    /// Parses an argument of the command line. `platform` selects from what a reference names.
    pub(super) fn parse(image: &str, platform: Option<&str>) -> anyhow::Result<Self> {
        match DigestPrefix::parse(image) {
            Some(digest) => {
                anyhow::ensure!(
                    platform.is_none(),
                    "--platform selects from what a reference names; a digest has one platform already"
                );
                Ok(Self::Digest(digest))
            }
            None => Ok(Self::Reference(Wanted::parse(image, platform)?)),
        }
    }

    /// The same, of what `choice` takes of what a reference names.
    pub(super) fn choosing(self, choice: Choice) -> anyhow::Result<Self> {
        match self {
            Self::Reference(wanted) => Ok(Self::Reference(wanted.choosing(choice))),
            Self::Digest(digest) => {
                anyhow::ensure!(
                    choice.is_all(),
                    "--include and --exclude choose of what a reference names; a digest names one image already"
                );
                Ok(Self::Digest(digest))
            }
        }
    }

    /// The image, kept from the sweep. No registry is asked.
    pub(super) async fn find(self, engine: &Engine, output: Output) -> anyhow::Result<Ready> {
        let digest = match self {
            Self::Reference(wanted) => return wanted.ensure(engine, PullPolicy::Never, output).await,
            Self::Digest(digest) => digest,
        };
        let manifest = digest.only(&in_store(engine, &digest)?)?;
        // What is read after this stays.
        let hold = engine.store.hold();
        hold.keep(&[Held::Manifest(manifest)]).await?;
        let record = engine.store.images().get(&manifest)?;
        let record = record.ok_or_else(|| StoredError::Nobody(manifest.hex()))?;
        Ok(Ready { image: record.image, record, hold, fetched: 0, admission: None })
    }

    /// The manifest of an image that may be pinned. A pin outlives its image where damage made that be removed.
    pub(super) async fn find_pinned(self, engine: &Engine, output: Output) -> anyhow::Result<Digest> {
        let digest = match self {
            Self::Digest(digest) => digest,
            named @ Self::Reference(_) => return Ok(named.find(engine, output).await?.record.key()),
        };
        let pins = engine.store.pins().list_all()?.into_iter().map(|pin| pin.image);
        let pins: BTreeSet<_> = pins.filter(|pin| digest.begins(pin)).collect();
        let found = if pins.is_empty() { in_store(engine, &digest)? } else { pins };
        Ok(digest.only(&found)?)
    }
}

/// The keys of the images that `digest` may mean.
fn in_store(engine: &Engine, digest: &DigestPrefix) -> anyhow::Result<BTreeSet<Digest>> {
    let listed = engine.store.images().list()?;
    let records: Vec<_> = listed.images.into_iter().map(|image| image.record).collect();
    let keys = |is_meant: &dyn Fn(&&ImageRecord) -> bool| -> BTreeSet<Digest> {
        records.iter().filter(is_meant).map(ImageRecord::key).collect()
    };
    let mut found = keys(&|record| digest.is_of(record));
    if found.is_empty() {
        found = keys(&|record| digest.names(record));
    }
    match listed.unreadable.into_iter().next() {
        // It may be the one that is meant.
        Some(unreadable) if found.is_empty() => Err(unreadable.into()),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_told_from_references() {
        for text in ["abcdef", "ABCDEF012345", "sha256:abcdef", "@sha256:abcdef", &"0".repeat(64)] {
            assert!(DigestPrefix::parse(text).is_some(), "{text}");
        }
        for text in
            ["abcde", "sha256:", "sha512:abcdef", "r.io/abcdef", "oci:abcdef", "abcdefg", &"0".repeat(65)]
        {
            assert_eq!(DigestPrefix::parse(text), None, "{text}");
        }
        assert!(Stored::parse("abcdef", Some("linux/arm64")).is_err());
    }

    #[test]
    fn a_beginning_means_one_digest_or_says_which() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let prefix = |digits: &str| DigestPrefix(digits.to_owned());
        assert_eq!(prefix("ca9781").only(&BTreeSet::from([a])), Ok(a));
        let nobody = prefix("ca9781").only(&BTreeSet::new()).unwrap_err();
        let several = prefix("ca9781").only(&BTreeSet::from([a, b])).unwrap_err();
        assert_eq!((nobody.kind(), several.kind()), (Kind::NotFound, Kind::Invalid));
        assert!(several.to_string().contains(&a.to_string()) && several.to_string().contains(&b.to_string()));
    }
}
