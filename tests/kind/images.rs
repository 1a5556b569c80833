//! The images that volumes show.

use std::collections::BTreeMap;

use composefs_csi::oci::digest::Digest;

use crate::support::images::{Image, Layout};

/// An image's files by path, each with its content and mode.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, (Vec<u8>, u32)>);

impl Files {
    /// With a file that everybody may read.
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), (content.into(), 0o644));
        self
    }

    /// With a program.
    pub fn with_program(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), (content.into(), 0o755));
        self
    }

    /// The image of one layer, in a layout, tagged `latest`.
    pub fn layout(&self) -> Layout {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, (content, mode)) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(*mode);
            header.set_mtime(1);
            archive.append_data(&mut header, path, &content[..]).expect("an archive in memory");
        }
        Layout::of(&Image::new(vec![archive.into_inner().expect("an archive in memory")]))
    }
}

/// Bytes that compress badly and look different for every seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// A file's SHA-256 as `sha256sum` prints it.
pub fn sha256(content: &[u8]) -> String {
    Digest::of(content).hex().to_owned()
}
