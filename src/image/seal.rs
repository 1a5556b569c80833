//! Sealed images: the composefs digest in a manifest, which a signature over the manifest covers.
//!
//! The annotation names are those of the composefs project (composefs-oci 0.9.4, "sealing specification"). They
//! describe an image that is built by the canonical rules. Tools that seal images differ in which extended
//! attributes they keep, so both variants are tried. These rules need a `/usr`. For images without one (data,
//! models, configuration) this driver has an annotation of its own, for the tree as the layers have it.
//!
//! Reading an annotation proves nothing. The pull compares it with the image that it builds, and only a signature
//! over the manifest says who made it.

use crate::image::tree::{Reduction, Rules, XattrRule};
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::manifest::Manifest;

pub mod document;

/// The composefs project's annotation for the merged image, by sha256.
pub const MERGED: &str = "composefs.merged.erofs.v1.fsverity-sha256-12";
/// The composefs project's annotation by sha512. This driver cannot compare it: its stores use sha256 only.
pub(crate) const MERGED_SHA512: &str = "composefs.merged.erofs.v1.fsverity-sha512-12";
/// This driver's annotation, for the tree as the layers have it. It is not of the composefs project.
pub const FAITHFUL: &str = "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12";

const CANONICAL: [Rules; 2] =
    [Rules::Canonical { xattrs: XattrRule::AllowlistOnly }, Rules::Canonical { xattrs: XattrRule::KeepUser }];

/// The likelier ones first. With special files, only what a node shows as it is in the layers can be sealed.
const FAITHFUL_RULES: [Rules; 4] = [
    Rules::Faithful,
    Rules::Verbatim,
    Rules::Reduced { to: Reduction::Unprivileged, special_files: false },
    Rules::Reduced { to: Reduction::NotExecutable, special_files: false },
];

/// The digest that a manifest demands of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The annotation with the digest: [`MERGED`] or [`FAITHFUL`].
    pub annotation: &'static str,
    /// The composefs digest.
    pub digest: VerityDigest,
}

/// Why a manifest's annotation cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The value is not a digest.
    #[error(
        "annotation {annotation} is {value:?}, which is not 64 lowercase hexadecimal digits; seal the image again, for \
         example with `composefs-csi seal --force`"
    )]
    Malformed {
        /// The annotation.
        annotation: &'static str,
        /// Its value, shortened.
        value: String,
    },
}

impl SealError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Seal {
    /// The seal of a manifest. If it has both annotations, the composefs project's counts.
    ///
    /// # Errors
    /// An annotation is present but not a digest, which is not the same as absent.
    pub fn of(manifest: &Manifest) -> Result<Option<Self>, SealError> {
        for annotation in [MERGED, FAITHFUL] {
            if let Some(value) = manifest.annotations.get(annotation) {
                // Lowercase only, so that a digest has one spelling.
                let lowercase = !value.bytes().any(|byte| byte.is_ascii_uppercase());
                let digest = VerityDigest::from_hex(value).filter(|_| lowercase);
                let value = value.chars().take(160).collect();
                let digest = digest.ok_or(SealError::Malformed { annotation, value })?;
                return Ok(Some(Self { annotation, digest }));
            }
        }
        Ok(None)
    }

    /// The rules by which the sealed image may have been built, the likelier ones first.
    pub fn rules(&self) -> &'static [Rules] {
        if self.annotation == FAITHFUL { &FAITHFUL_RULES } else { &CANONICAL }
    }

    /// The annotation for an image that was built by `rules`.
    pub fn annotation_for(rules: Rules) -> &'static str {
        match rules {
            Rules::Faithful | Rules::Verbatim | Rules::Reduced { .. } => FAITHFUL,
            Rules::Canonical { .. } => MERGED,
        }
    }
}

/// Why an image has no usable seal, for the error that refuses it.
pub(crate) fn why_unsealed(manifest: &Manifest) -> String {
    if manifest.annotations.contains_key(MERGED_SHA512) {
        format!("it has a sha512 digest only ({MERGED_SHA512}), and sha256 is what can be compared here")
    } else {
        format!("its manifest has no annotation {MERGED}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::manifest::Document;

    fn manifest(annotations: &[(&str, &str)]) -> Manifest {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let digest = format!("sha256:{}", "0".repeat(64));
        let config = "application/vnd.oci.image.config.v1+json";
        let text = serde_json::json!({
            "schemaVersion": 2, "layers": [], "annotations": annotations,
            "config": {"mediaType": config, "digest": digest, "size": 2},
        });
        match Document::parse(text.to_string().as_bytes(), None).unwrap() {
            Document::Image(manifest) => manifest,
            Document::Index(_) => panic!(),
        }
    }

    #[test]
    fn annotations_become_seals() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        assert_eq!(Seal::of(&manifest(&[("other", &a)])).unwrap(), None);
        let seal = Seal::of(&manifest(&[(MERGED, &a), (FAITHFUL, &b)])).unwrap().unwrap();
        assert_eq!((seal.annotation, seal.digest), (MERGED, VerityDigest([0xaa; 32])));
        assert_eq!(seal.rules(), CANONICAL);
        let seal = Seal::of(&manifest(&[(FAITHFUL, &b)])).unwrap().unwrap();
        assert_eq!((seal.digest, seal.rules()), (VerityDigest([0xbb; 32]), &FAITHFUL_RULES[..]));
        for rules in FAITHFUL_RULES.into_iter().chain(CANONICAL) {
            let seal = Seal { annotation: Seal::annotation_for(rules), digest: seal.digest };
            assert!(seal.rules().contains(&rules));
        }
    }

    #[test]
    fn what_is_no_digest_is_not_as_good_as_nothing() {
        for bad in ["", "sha256:", &"A".repeat(64), &"a".repeat(63), &"g".repeat(64), &"a".repeat(128)] {
            let error = Seal::of(&manifest(&[(MERGED, bad)])).unwrap_err();
            assert!(error.to_string().contains(MERGED), "{error}");
        }
    }

    #[test]
    fn sha512_is_named() {
        let image = manifest(&[(MERGED_SHA512, &"a".repeat(128))]);
        assert_eq!(Seal::of(&image).unwrap(), None);
        assert!(why_unsealed(&image).contains("sha512"));
        assert!(why_unsealed(&manifest(&[])).contains(MERGED));
    }
}
