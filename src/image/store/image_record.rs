//! One record per image: everything needed to mount it, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::key::NodeKey;
use super::member::Member;
use super::record::{self, Record};
use crate::image::tree::{Powers, Rules};
use crate::image::verity::VerityDigest;
use crate::oci::artifact::Place;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;

/// Raised whenever the same layers would give other bytes than before by the same rules: digests of different
/// builders are not compared, and an image of another builder is built anew. 2 leaves out device nodes, named pipes
/// and the labels of security modules. 3 is the first that makes images without privileges; no digest of the rules
/// before changed, but what they made is to be replaced. 4 unpacks each layer by itself
/// (`docs/adr/0030-how-layers-are-read.md`).
const BUILDER: u32 = 4;

/// What is known of an image that is completely in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the platform's manifest (never of an index).
    pub manifest: Digest,
    /// What of its tree the image has: all, or what a volume asked for.
    #[serde(default, skip_serializing_if = "Choice::is_all")]
    pub choice: Choice,
    /// fs-verity digest of the composefs image, which is an object.
    pub image: VerityDigest,
    /// Size of the composefs image in bytes.
    pub image_size: u64,
    /// By which rules the tree was made of the layers.
    pub rules: Rules,
    /// Which builder followed the rules.
    pub builder: u32,
    /// Whether the manifest names the composefs digest, which `image` was found to be.
    pub sealed: bool,
    /// DiffIDs computed here, lowest layer first.
    pub layers: Vec<Digest>,
    /// Of an artifact: where each of the layers lies in the tree. Those of images lie on top of each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
    /// Platform as `os/arch[/variant]`, where the image states one.
    pub platform: Option<String>,
    /// The references it was pulled as, for people.
    pub names: Vec<String>,
    /// Inodes of the tree.
    pub inodes: u64,
    /// Sum of the sizes of the tree's regular files in bytes, hardlinks counted once.
    pub bytes: u64,
    /// When the record was made, seconds since 1970.
    pub created: u64,
    /// What the image gives to pods beyond bytes to read. `None` unless it is sealed, and in records of releases that
    /// did not look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub powers: Option<Powers>,
    /// Images of the same layers by other rules, which some volumes show. They have no objects of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
    /// Of a combined image: the images that it is made of, in their order. Its `manifest` is then [`Member::key`], its
    /// layers are all of theirs, and its tree is made of their trees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
}

/// Another composefs image of the same layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// By which rules the tree was made of the layers.
    pub rules: Rules,
    /// Which builder followed the rules.
    pub builder: u32,
    /// fs-verity digest of the composefs image, which is an object.
    pub image: VerityDigest,
    /// Size of the composefs image in bytes.
    pub image_size: u64,
}

impl Record for ImageRecord {
    const DOMAIN: &'static str = "image record";
    /// Format 1 carried no code of the node's key, so nothing in it can be believed: such an image is pulled and
    /// verified anew.
    const FORMAT: Option<u32> = Some(2);
    /// The store's file `version` says it, too.
    const ALGORITHM: Option<&'static str> = Some("fsverity-sha256-12");
}

impl ImageRecord {
    /// What the codes of image records are made for.
    pub const DOMAIN: &str = <Self as Record>::DOMAIN;
    /// The builder of this release.
    pub const BUILDER: u32 = BUILDER;

    /// By what the store knows the image: the manifest's digest, or that of a choice of it. Whatever else is kept about the
    /// image is kept under the same.
    pub fn key(&self) -> Digest {
        self.choice.key(&self.manifest)
    }

    /// Whether this release would make another record of the same layers. A sealed image cannot differ: its manifest
    /// says what it is, and so does the record. But what it gives to pods must have been looked for.
    pub fn is_outdated(&self) -> bool {
        if self.sealed { self.powers.is_none() } else { self.builder != BUILDER }
    }

    /// Whether it is put together of other images. No registry has such an image, and no reference names one.
    pub fn is_combined(&self) -> bool {
        !self.members.is_empty()
    }

    /// Every composefs image of these layers that is in the store; the record's own comes first.
    pub fn images(&self) -> impl Iterator<Item = Variant> {
        let own = Variant {
            rules: self.rules,
            builder: self.builder,
            image: self.image,
            image_size: self.image_size,
        };
        std::iter::once(own).chain(self.variants.iter().cloned())
    }

    /// Whether one of them is among `images`.
    pub fn is_any_of(&self, images: &BTreeSet<VerityDigest>) -> bool {
        self.images().any(|own| images.contains(&own.image))
    }

    /// The composefs image by these rules as this release builds it, if it is in the store.
    pub fn image_by(&self, rules: Rules) -> Option<VerityDigest> {
        let found = self.images().find(|own| (own.rules, own.builder) == (rules, BUILDER));
        found.map(|own| own.image)
    }

    /// The record as it is kept on disk.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn render(&self, key: &NodeKey) -> Result<Vec<u8>, serde_json::Error> {
        record::encode(self, key)
    }

    /// Parses what is in the file `path`, whose name says that it is about the image `about`.
    ///
    /// # Errors
    /// [`StoreError::Torn`] for what is no record, [`StoreError::Future`] for one of a later release,
    /// [`StoreError::Unauthentic`] for one that was not made with `key`.
    pub fn parse(path: &Path, about: &Digest, bytes: &[u8], key: &NodeKey) -> Result<Self, StoreError> {
        let record: Self = record::decode(bytes, key)
            .map_err(|fault| fault.at::<Self>(path, || format!("the record of image {about}")))?;
        if record.key() != *about {
            let why = format!("about {}, not what its name says", record.key());
            return Err(StoreError::Torn { path: path.to_owned(), why });
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tree::Reduction;

    fn record() -> ImageRecord {
        ImageRecord {
            manifest: Digest::of(b"m"),
            choice: Choice::default(),
            image: VerityDigest([7; 32]),
            image_size: 4096,
            rules: Rules::Faithful,
            builder: BUILDER,
            sealed: false,
            layers: vec![Digest::of(b"l")],
            places: Vec::new(),
            platform: Some("linux/amd64".to_owned()),
            names: vec!["registry.example/a:1".to_owned()],
            inodes: 3,
            bytes: 70,
            created: 1,
            powers: None,
            variants: Vec::new(),
            members: Vec::new(),
        }
    }

    fn key(byte: u8) -> NodeKey {
        NodeKey::from_bytes(&[byte; 32])
    }

    fn parse(about: &Digest, bytes: &[u8]) -> Result<ImageRecord, StoreError> {
        ImageRecord::parse(Path::new("/r"), about, bytes, &key(1))
    }

    #[test]
    fn round_trips() {
        let bytes = record().render(&key(1)).unwrap();
        assert_eq!(parse(&record().manifest, &bytes).unwrap(), record());
    }

    #[test]
    fn members_are_kept_and_absent_where_there_are_none() {
        let (manifest, image) = (Digest::of(b"1"), VerityDigest([1; 32]));
        let (path, at) = ("models".to_owned(), "base".to_owned());
        let members = vec![Member { name: "r.io/a:1".to_owned(), manifest, image, path, at }];
        let combined = ImageRecord { manifest: Member::key(&members), members, ..record() };
        let read = parse(&combined.manifest, &combined.render(&key(1)).unwrap()).unwrap();
        assert_eq!((read.is_combined(), &read), (true, &combined));
        assert!(!String::from_utf8(record().render(&key(1)).unwrap()).unwrap().contains("members"));
    }

    #[test]
    fn what_another_builder_made_is_outdated_unless_it_was_sealed() {
        for builder in [1, BUILDER, BUILDER + 1] {
            let made = ImageRecord { builder, ..record() };
            let read = parse(&made.manifest, &made.render(&key(1)).unwrap()).unwrap();
            assert_eq!((read.builder, read.is_outdated()), (builder, builder != BUILDER));
            let sealed = ImageRecord { sealed: true, ..read };
            assert!(sealed.is_outdated(), "what it gives to pods is unknown");
            assert!(!ImageRecord { powers: Some(Powers::default()), ..sealed }.is_outdated());
        }
    }

    #[test]
    fn variants_are_images_of_the_record_that_only_their_own_builder_knows() {
        let rules = Rules::Reduced { to: Reduction::NotExecutable, special_files: false };
        let variant = Variant { rules, builder: BUILDER, image: VerityDigest([9; 32]), image_size: 8192 };
        let powers = Powers { program: Some("/bin/sh".to_owned()), ..Powers::default() };
        let made = ImageRecord { powers: Some(powers), variants: vec![variant], ..record() };
        let read = parse(&made.manifest, &made.render(&key(1)).unwrap()).unwrap();
        assert_eq!(read, made);
        assert_eq!(read.image_by(rules), Some(VerityDigest([9; 32])));
        assert_eq!(read.image_by(Rules::Faithful), Some(read.image));
        assert_eq!(read.image_by(Rules::Verbatim), None);
        assert_eq!(
            read.images().map(|own| own.image).collect::<Vec<_>>(),
            [7, 9].map(|n| VerityDigest([n; 32]))
        );
        assert!(read.is_any_of(&BTreeSet::from([VerityDigest([9; 32])])));
        assert!(!read.is_any_of(&BTreeSet::from([VerityDigest([8; 32])])));
        let mut old = read;
        old.variants[0].builder = BUILDER - 1;
        assert_eq!(old.image_by(rules), None);
    }

    #[test]
    fn a_choice_is_another_image_of_the_manifest() {
        let choice = Choice::new(["a/*"], ["a/b"]).unwrap();
        let chosen = ImageRecord { choice, ..record() };
        assert_eq!(record().key(), record().manifest);
        assert_ne!(chosen.key(), chosen.manifest);
        let bytes = chosen.render(&key(1)).unwrap();
        assert_eq!(parse(&chosen.key(), &bytes).unwrap(), chosen);
        // Under the manifest's own name it would be taken for all of it.
        assert!(matches!(parse(&chosen.manifest, &bytes), Err(StoreError::Torn { .. })));
        assert!(!String::from_utf8(record().render(&key(1)).unwrap()).unwrap().contains("choice"));
    }

    #[test]
    fn every_truncation_is_torn() {
        let bytes = record().render(&key(1)).unwrap();
        for length in 0..bytes.len() - 2 {
            let parsed = parse(&record().manifest, &bytes[..length]);
            assert!(matches!(parsed, Err(StoreError::Torn { .. })), "{length}");
        }
    }

    #[test]
    fn a_newer_or_misplaced_record_is_told_apart() {
        let newer = br#"{"format":3,"shape":"unheard of"}"#;
        let parsed = parse(&record().manifest, newer);
        assert!(matches!(parsed, Err(StoreError::Future { found: 3, .. })));
        let parsed = parse(&Digest::of(b"x"), &record().render(&key(1)).unwrap());
        assert!(matches!(parsed, Err(StoreError::Torn { .. })));
    }

    #[test]
    fn what_this_node_did_not_write_is_not_believed() {
        let manifest = record().manifest;
        let written = record().render(&key(1)).unwrap();
        let text = String::from_utf8(written.clone()).unwrap();
        let other = VerityDigest([8; 32]).hex();
        let altered = text.replace(&record().image.hex(), &other);
        assert_ne!(altered, text);
        let mut bare = serde_json::to_value(record()).unwrap();
        bare["format"] = 1.into();
        let formerly = bare.to_string();
        bare["format"] = 2.into();
        for bytes in [altered, formerly, bare.to_string(), text.replace("\"format\":2", "\"format\":1")] {
            let error = parse(&manifest, bytes.as_bytes()).unwrap_err();
            assert!(matches!(error, StoreError::Unauthentic { .. }), "{error}");
            assert!(
                error.to_string().contains(&manifest.hex()) && error.to_string().contains("/r"),
                "{error}"
            );
        }
        let stranger = ImageRecord::parse(Path::new("/r"), &manifest, &written, &key(2));
        assert!(matches!(stranger, Err(StoreError::Unauthentic { .. })));
    }
}
