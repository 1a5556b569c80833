//! One record per image: everything needed to mount it, and nothing else.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::image::digest::Digest;
use crate::image::verity::VerityDigest;

/// The format of image records written here.
const FORMAT: u32 = 1;

/// What is known of an image that is completely in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the platform's manifest (never of an index): the record's key.
    pub manifest: Digest,
    /// fs-verity digest of the composefs image, which is an object.
    pub image: VerityDigest,
    /// Size of the composefs image in bytes.
    pub image_size: u64,
    /// DiffIDs computed here, lowest layer first.
    pub layers: Vec<Digest>,
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
}

/// How far the bytes that a pod reads are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// Digests were checked when the image was pulled.
    Fetch,
    /// And once more, by this process, before the first mount.
    Mount,
    /// By the kernel at every read (fs-verity).
    Read,
}

impl std::fmt::Display for Integrity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fetch => "fetch",
            Self::Mount => "mount",
            Self::Read => "read",
        })
    }
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    #[serde(flatten)]
    record: &'a ImageRecord,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl ImageRecord {
    /// The record as it is kept on disk.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec(&Written { format: FORMAT, record: self })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Parses what is in the file `path`, whose name says that it is about `manifest`.
    ///
    /// # Errors
    /// [`StoreError::Torn`] for what is no record, [`StoreError::Future`] for one of a later release.
    pub fn parse(path: &Path, manifest: &Digest, bytes: &[u8]) -> Result<Self, StoreError> {
        let torn = |why: String| StoreError::Torn { path: path.to_owned(), why };
        if bytes.is_empty() {
            return Err(torn("empty, as after a power cut".to_owned()));
        }
        let Format { format } = serde_json::from_slice(bytes).map_err(|error| torn(error.to_string()))?;
        if format > FORMAT {
            return Err(StoreError::Future { path: path.to_owned(), found: format, known: FORMAT });
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| torn(error.to_string()))?;
        if record.manifest != *manifest {
            return Err(torn(format!("about {}, not what its name says", record.manifest)));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ImageRecord {
        ImageRecord {
            manifest: Digest::of(b"m"),
            image: VerityDigest([7; 32]),
            image_size: 4096,
            layers: vec![Digest::of(b"l")],
            platform: Some("linux/amd64".to_owned()),
            names: vec!["registry.example/a:1".to_owned()],
            inodes: 3,
            bytes: 70,
            created: 1,
        }
    }

    #[test]
    fn round_trips() {
        let bytes = record().render().unwrap();
        let parsed = ImageRecord::parse(Path::new("/r"), &record().manifest, &bytes).unwrap();
        assert_eq!(parsed, record());
    }

    #[test]
    fn every_truncation_is_torn() {
        let bytes = record().render().unwrap();
        for length in 0..bytes.len() - 2 {
            let parsed = ImageRecord::parse(Path::new("/r"), &record().manifest, &bytes[..length]);
            assert!(matches!(parsed, Err(StoreError::Torn { .. })), "{length}");
        }
    }

    #[test]
    fn a_newer_or_misplaced_record_is_told_apart() {
        let newer = br#"{"format":2,"shape":"unheard of"}"#;
        let parsed = ImageRecord::parse(Path::new("/r"), &record().manifest, newer);
        assert!(matches!(parsed, Err(StoreError::Future { found: 2, .. })));
        let parsed = ImageRecord::parse(Path::new("/r"), &Digest::of(b"x"), &record().render().unwrap());
        assert!(matches!(parsed, Err(StoreError::Torn { .. })));
    }
}
