//! The two tables, compressed while they grow.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Described;
use crate::oci::digest::Digest;

/// JSON that is compressed as it comes.
pub(super) struct Table {
    packed: zstd::Encoder<'static, Vec<u8>>,
    bytes: u64,
}

impl Table {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        Ok(Self { packed: zstd::Encoder::new(Vec::new(), level)?, bytes: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.packed.write_all(bytes)
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.write(&serde_json::to_vec(value)?)
    }

    /// The compressed bytes, and how many there were before.
    pub(super) fn finish(self) -> io::Result<(Vec<u8>, u64)> {
        Ok((self.packed.finish()?, self.bytes))
    }
}

/// An entry of the table of contents. What Go's encoder leaves out is left out here.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row<'a> {
    r#type: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(rename = "modtime", skip_serializing_if = "Option::is_none")]
    modified: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xattrs: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
    #[serde(skip_serializing_if = "str::is_empty")]
    chunk_type: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> Row<'a> {
    pub(super) fn of(described: &'a Described) -> Self {
        Self {
            r#type: described.sort,
            name: &described.name,
            link_name: &described.link,
            mode: described.mode.into(),
            size: described.size,
            uid: described.uid.into(),
            gid: described.gid.into(),
            modified: Some(&described.modified),
            xattrs: Some(&described.xattrs).filter(|all| !all.is_empty()),
            ..Self::default()
        }
    }

    /// A further piece of a file, whose frame begins here.
    pub(super) fn piece(name: &'a str, frame: u64) -> Self {
        Self { r#type: "chunk", name, offset: frame, ..Self::default() }
    }

    pub(super) fn place(&mut self, digest: &Digest, start: u64, end: u64) {
        (self.digest, self.offset, self.end_offset) = (Some(*digest), start, end);
    }

    pub(super) fn cut(&mut self, at: u64, size: u64, digest: &Digest, zeros: bool) {
        (self.chunk_offset, self.chunk_size, self.chunk_digest) = (at, size, Some(*digest));
        self.chunk_type = if zeros { "zeros" } else { "" };
    }
}

/// A line of the tar-split (vbatts/tar-split, tar/storage, `Entry`).
#[derive(Serialize)]
pub(super) struct SplitLine<'a> {
    r#type: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    payload: Option<String>,
    position: u64,
}

impl<'a> SplitLine<'a> {
    /// Bytes of the archive.
    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self { r#type: 2, name: "", size: None, payload: Some(STANDARD.encode(bytes)), position: 0 }
    }

    /// The content of a file, with its checksum.
    pub(super) fn file(name: &'a str, size: u64, checksum: Option<[u8; 8]>) -> Self {
        let payload = checksum.map(|sum| STANDARD.encode(sum));
        Self { r#type: 1, name, size: (size > 0).then_some(size), payload, position: 0 }
    }

    pub(super) fn at(&self, position: u64) -> SplitLine<'_> {
        SplitLine { payload: self.payload.clone(), position, ..*self }
    }
}
