//! Archives made by hand, including those that no tar program would write.

use super::header::BLOCK;

/// A PAX record with the right length.
pub(crate) fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length.to_string().len() + body != length {
        length = length.to_string().len() + body;
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// A header block to be filled in by hand.
#[derive(Clone)]
pub(crate) struct Raw(pub(crate) [u8; BLOCK]);

impl Raw {
    pub(crate) fn new(flag: u8, name: &[u8], size: u64) -> Self {
        let mut raw = Self([0; BLOCK]);
        raw.put(0, &name[..name.len().min(100)]);
        raw.put(100, b"0000644\0");
        raw.put(108, b"0000000\0");
        raw.put(116, b"0000000\0");
        raw.put(124, format!("{size:011o}\0").as_bytes());
        raw.put(136, b"00000000000\0");
        raw.put(156, &[flag]);
        raw.put(257, b"ustar\x0000");
        raw
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The block with its checksum.
    pub(crate) fn with_checksum(&self) -> Vec<u8> {
        let mut block = self.0;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.to_vec()
    }
}

/// An archive under construction.
#[derive(Default, Clone)]
pub(crate) struct Builder(pub(crate) Vec<u8>);

impl Builder {
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Content, padded.
    pub(crate) fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(crate) fn entry(self, flag: u8, name: &[u8], content: &[u8]) -> Self {
        self.raw(&Raw::new(flag, name, content.len() as u64).with_checksum()).content(content)
    }

    pub(crate) fn file(self, name: &[u8], content: &[u8]) -> Self {
        self.entry(b'0', name, content)
    }

    pub(crate) fn link(self, flag: u8, name: &[u8], target: &[u8]) -> Self {
        let header = Raw::new(flag, name, 0).put(157, target).with_checksum();
        self.raw(&header)
    }

    pub(crate) fn pax(self, flag: u8, records: &[(&[u8], &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.entry(flag, b"PaxHeaders/x", &body)
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 2 * BLOCK]).0
    }
}
