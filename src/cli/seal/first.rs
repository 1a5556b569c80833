//! The file of what is read first when an image starts: paths and digests, one a line.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use crate::image::composefs::each_entry;
use crate::image::entry::EntryKind;
use crate::image::lazy::FirstList;
use crate::image::verity::VerityDigest;

/// Bytes of the file that are read.
const FILE_MAX: u64 = 16 << 20;

/// What is read first, as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstUses(Vec<First>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum First {
    Object(VerityDigest),
    /// Without the slash that it begins with.
    Path(Vec<u8>),
}

impl FirstUses {
    /// Reads a file. Blocking.
    ///
    /// # Errors
    /// It cannot be read, is too large, or a line is neither a path nor a digest.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display();
        let read = || {
            let mut bytes = Vec::new();
            std::fs::File::open(file)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = read().with_context(|| format!("--first {name} cannot be read"))?;
        anyhow::ensure!(bytes.len() as u64 <= FILE_MAX, "--first {name} is larger than {FILE_MAX} bytes");
        Self::parse(&bytes).with_context(|| format!("--first {name}"))
    }

    /// Parses lines. Empty ones, and those that begin with `#`, are nothing.
    ///
    /// # Errors
    /// A line is neither a path nor a digest, or there are too many.
    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut uses = Vec::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let digest = || VerityDigest::from_hex(std::str::from_utf8(line).ok()?);
            uses.push(match line.strip_prefix(b"/") {
                Some(path) => First::Path(path.to_vec()),
                None => First::Object(digest().with_context(|| {
                    format!("line {} is neither a path that begins with / nor a digest", number + 1)
                })?),
            });
            let most = FirstList::OBJECTS_MAX;
            anyhow::ensure!(
                uses.len() <= most,
                "there are more than {most} lines; the first uses are enough"
            );
        }
        Ok(Self(uses))
    }

    /// The objects that these are in a composefs image. What has no object, as small files and links, is left out.
    ///
    /// # Errors
    /// The bytes are no image, or none of the lines means anything in it.
    pub fn of_image(&self, image: &[u8], has: impl Fn(&VerityDigest) -> bool) -> anyhow::Result<FirstList> {
        let paths = self.0.iter().filter_map(|first| match first {
            First::Path(path) => Some(path.clone()),
            First::Object(_) => None,
        });
        let mut found = look_up(image, paths.collect())?;
        // Further names of a file, by the first of them.
        let links = found.values().filter_map(|entry| entry.hard_link().map(<[u8]>::to_vec));
        let targets = look_up(image, links.collect())?;
        for entry in found.values_mut() {
            if let Some(target) = entry.hard_link().and_then(|target| targets.get(target)) {
                *entry = target.clone();
            }
        }
        let missing = |first: &&First| match first {
            First::Object(object) => !has(object),
            First::Path(path) => !found.contains_key(path),
        };
        let missing = self.0.iter().filter(missing).count();
        anyhow::ensure!(
            self.0.is_empty() || missing < self.0.len(),
            "--first names nothing that this image has; is it of another image?"
        );
        if missing > 0 {
            tracing::warn!(missing, "lines of --first that this image has not are left out");
        }
        let objects = self.0.iter().filter_map(|first| match first {
            First::Object(object) => Some(*object).filter(&has),
            First::Path(path) => found.get(path)?.object().map(|(object, _)| object),
        });
        Ok(FirstList::of(objects))
    }
}

/// What stands at these paths of an image.
fn look_up(image: &[u8], paths: HashSet<Vec<u8>>) -> anyhow::Result<HashMap<Vec<u8>, EntryKind>> {
    let mut found = HashMap::new();
    if paths.is_empty() {
        return Ok(found);
    }
    let Ok(()) = each_entry(image, b"", |entry| {
        if paths.contains(&*entry.path) {
            found.insert(entry.path.into(), entry.kind);
        }
        Ok::<(), Infallible>(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_paths_and_digests() {
        let digest = VerityDigest::of(b"x");
        let text = format!("# by hand\n\n/usr/bin/a b\r\n{digest}\n/\u{e9}");
        let FirstUses(uses) = FirstUses::parse(text.as_bytes()).unwrap();
        let path = |path: &str| First::Path(path.as_bytes().to_vec());
        assert_eq!(uses, [path("usr/bin/a b"), First::Object(digest), path("\u{e9}")]);
        for bad in ["usr/bin/a", "/a\nnonsense", "abc"] {
            let error = FirstUses::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("neither a path"), "{error}");
        }
        let many = "/a\n".repeat(FirstList::OBJECTS_MAX + 1);
        assert!(FirstUses::parse(many.as_bytes()).is_err());
    }
}
