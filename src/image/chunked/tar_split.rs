//! The tar-split: everything of a tar archive that is not content of files, as JSON lines (vbatts/tar-split,
//! tar/storage).
//!
//! `{"type":2,"payload":"…"}` are bytes of the archive, in base64; `{"type":1,"name":"…","size":n}` stands for the
//! content of a file. Entries without content have a line of the second sort with size 0.

use std::io::{BufRead, BufReader, Read, Take};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::annotations::Section;
use super::doubt::Doubt;
use crate::oci::digest::Digest;

/// Bytes of a line: a header with the largest extensions that a layer may have, in base64.
const LINE_MAX: u64 = 4 << 20;

/// A piece of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These bytes of the archive.
    Raw(Vec<u8>),
    /// The content of this file, which is not empty.
    File {
        /// Its name, as in the tar.
        name: String,
        /// Bytes of its content.
        size: u64,
    },
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: u8,
    name: Option<String>,
    #[serde(borrow)]
    name_raw: Option<&'a str>,
    size: Option<u64>,
    #[serde(borrow)]
    payload: Option<&'a str>,
    position: Option<u64>,
}

/// Reads a tar-split, segment by segment. At most a line of it is in memory.
pub struct TarSplit<R: Read> {
    lines: Take<BufReader<R>>,
    line: Vec<u8>,
    position: u64,
}

impl<R: Read> std::fmt::Debug for TarSplit<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TarSplit(line {})", self.position)
    }
}

impl<'a> TarSplit<zstd::Decoder<'static, &'a [u8]>> {
    /// Reads it from its compressed bytes, which are to have this digest.
    ///
    /// # Errors
    /// They have another one, or are not compressed.
    pub fn open(packed: &'a [u8], section: &Section, digest: &Digest) -> Result<Self, Doubt> {
        if Digest::of(packed) != *digest {
            return Err(Doubt::Digest("tar-split"));
        }
        Self::reopen(packed, section)
    }

    /// The same, of bytes whose digest was compared before.
    ///
    /// # Errors
    /// They are not compressed.
    pub fn reopen(packed: &'a [u8], section: &Section) -> Result<Self, Doubt> {
        let decoder =
            zstd::Decoder::with_buffer(packed).map_err(|error| Doubt::TarSplit(error.to_string()))?;
        Ok(TarSplit::new(decoder, section.unpacked))
    }
}

impl<R: Read> TarSplit<R> {
    /// Reads at most `bytes` bytes of JSON lines.
    pub fn new(lines: R, bytes: u64) -> Self {
        Self { lines: BufReader::with_capacity(64 << 10, lines).take(bytes), line: Vec::new(), position: 0 }
    }

    /// The next segment; `None` at the end.
    ///
    /// # Errors
    /// A line is not of this format, or cannot be read.
    pub fn next_segment(&mut self) -> Result<Option<Segment>, Doubt> {
        loop {
            let fail =
                |what: &dyn std::fmt::Display, line: u64| Doubt::TarSplit(format!("line {line}: {what}"));
            self.line.clear();
            let mut limited = (&mut self.lines).take(LINE_MAX);
            let count =
                limited.read_until(b'\n', &mut self.line).map_err(|error| fail(&error, self.position))?;
            if count == 0 {
                return Ok(None);
            }
            let line: Line<'_> =
                serde_json::from_slice(&self.line).map_err(|error| fail(&error, self.position))?;
            if line.position.unwrap_or(0) != self.position {
                return Err(fail(&"it is not in its place", self.position));
            }
            if line.name_raw.is_some_and(|raw| !raw.is_empty()) {
                return Err(Doubt::Unfit("names that are not UTF-8"));
            }
            self.position += 1;
            match (line.r#type, line.size.unwrap_or(0)) {
                (2, _) => {
                    let raw = STANDARD.decode(line.payload.unwrap_or_default());
                    return raw
                        .map(|raw| Some(Segment::Raw(raw)))
                        .map_err(|error| fail(&error, self.position));
                }
                (1, 0) => {}
                (1, size) => return Ok(Some(Segment::File { name: line.name.unwrap_or_default(), size })),
                _ => return Err(fail(&"it is of no known type", self.position)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> Result<Vec<Segment>, Doubt> {
        let mut split = TarSplit::new(lines.as_bytes(), 1 << 20);
        std::iter::from_fn(|| split.next_segment().transpose()).collect()
    }

    #[test]
    fn segments_come_in_their_order() {
        let lines = concat!(
            r#"{"type":2,"payload":"aGVhZGVy","position":0}"#,
            "\n",
            r#"{"type":1,"name":"./dir/","payload":null,"position":1}"#,
            "\n",
            r#"{"type":2,"payload":"bW9yZQ==","position":2}"#,
            "\n",
            r#"{"type":1,"name":"./a","size":5,"payload":"PD7u4tgQAAA=","position":3}"#,
            "\n",
            r#"{"type":2,"payload":"","position":4}"#,
            "\n",
        );
        let file = Segment::File { name: "./a".to_owned(), size: 5 };
        let raw = |bytes: &[u8]| Segment::Raw(bytes.to_vec());
        assert_eq!(read(lines), Ok(vec![raw(b"header"), raw(b"more"), file, raw(b"")]));
    }

    #[test]
    fn what_is_no_tar_split_is_a_doubt() {
        for lines in [
            "{",
            "[]\n",
            r#"{"type":3,"position":0}"#,
            r#"{"type":2,"payload":"?","position":0}"#,
            r#"{"type":2,"payload":"aGVhZGVy","position":1}"#,
            r#"{"type":1,"size":-1,"position":0}"#,
        ] {
            assert!(matches!(read(lines), Err(Doubt::TarSplit(_))), "{lines}");
        }
        let raw = r#"{"type":1,"name":"x","name_raw":"/w==","size":3,"position":0}"#;
        assert!(matches!(read(raw), Err(Doubt::Unfit(_))));
        let long = format!(r#"{{"type":2,"payload":"{}","position":0}}"#, "A".repeat(5 << 20));
        let mut split = TarSplit::new(long.as_bytes(), 1 << 30);
        assert!(matches!(split.next_segment(), Err(Doubt::TarSplit(_))));
    }

    #[test]
    fn no_more_is_read_than_was_announced() {
        let lines = "{\"type\":2,\"payload\":\"\",\"position\":0}\n".repeat(2);
        let mut split = TarSplit::new(lines.as_bytes(), 50);
        assert!(split.next_segment().is_ok());
        assert!(split.next_segment().is_err());
    }

    #[test]
    fn another_digest_is_a_doubt() {
        let packed = zstd::encode_all(&b""[..], 1).unwrap();
        let section = Section { start: 0, length: packed.len() as u64, unpacked: 0 };
        assert!(TarSplit::open(&packed, &section, &Digest::of(&packed)).is_ok());
        let wrong = TarSplit::open(&packed, &section, &Digest::of(b"other")).err();
        assert_eq!(wrong, Some(Doubt::Digest("tar-split")));
    }
}
