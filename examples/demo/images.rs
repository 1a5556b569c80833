//! Two versions of an image, made of files of this machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::support::layout::{Image, Layer, Layout};
use crate::support::tarball::{Kind, Member};
use crate::support::walk::{Limit, Walk};

/// Directories of this machine that become one layer each, and limits on them.
const SOURCES: [(&str, Limit); 2] = [
    ("/usr/lib", Limit { files: 2_500, bytes: 70_000_000, file_bytes: 6_000_000 }),
    ("/usr/share", Limit { files: 6_000, bytes: 70_000_000, file_bytes: 3_000_000 }),
];

/// SHA-256 of the content of each file, by its path in the image.
pub type Contents = BTreeMap<PathBuf, [u8; 32]>;

/// An image and the expected content of its files.
#[derive(Debug)]
pub struct Version {
    pub image: Image,
    /// Its reference in a volume.
    pub reference: String,
    pub contents: Contents,
}

/// Writes version 1.0 and 1.1 into a layout below `base`.
pub fn make(base: &Path) -> Result<[Version; 2]> {
    let directory = base.join("images");
    let mut layout = Layout::create(&directory)?;
    let first = version(&mut layout, &directory, "1.0", &|_| b"")?;
    let second = version(&mut layout, &directory, "1.1", &next_release)?;
    Ok([first, second])
}

/// What a new release does to an image: rebuilt, so that every time and every layer differs; some files
/// moved, given to another user, or changed.
fn next_release(member: &mut Member) -> &'static [u8] {
    member.mtime += 86_400;
    if let Some(rest) = member.path.strip_prefix(b"usr/lib") {
        member.path = [b"opt/lib", rest].concat();
        if let Kind::Hardlink(target) = &mut member.kind {
            *target = [b"opt/lib", &target[b"usr/lib".len()..]].concat();
        }
    } else {
        member.uid = 1000;
    }
    let sum: usize = member.path.iter().map(|&byte| usize::from(byte)).sum();
    if member.kind == Kind::File && sum.is_multiple_of(40) { b"# changed in 1.1\n" } else { b"" }
}

fn version(
    layout: &mut Layout,
    directory: &Path,
    tag: &str,
    edit: &dyn Fn(&mut Member) -> &'static [u8],
) -> Result<Version> {
    let contents = std::cell::RefCell::new(Contents::new());
    let mut layers: Vec<Layer> = Vec::new();
    for (source, limit) in SOURCES {
        let mut layer = layout.layer()?;
        let at = Path::new(source).strip_prefix("/")?;
        let noting = |member: &mut Member| {
            let original =
                Path::new("/").join(PathBuf::from(std::ffi::OsString::from_vec(member.path.clone())));
            let appended = edit(member);
            if member.kind == Kind::File
                && let Ok(digest) = digest_of(File::open(&original).map(|file| file.chain(appended)))
            {
                let path = PathBuf::from(std::ffi::OsString::from_vec(member.path.clone()));
                contents.borrow_mut().insert(path, digest);
            }
            appended
        };
        Walk::new(&mut layer, limit, &noting)
            .add(Path::new(source), at)
            .with_context(|| format!("cannot put {source} into an image"))?;
        layers.push(layer.finish()?);
    }
    let image = layout.image(tag, &layers)?;
    let reference = format!("oci:{}:{tag}", directory.display());
    Ok(Version { image, reference, contents: contents.into_inner() })
}

/// SHA-256 of everything in a file.
pub fn digest_of(content: io::Result<impl Read>) -> io::Result<[u8; 32]> {
    let mut reader = BufReader::with_capacity(1 << 16, content?);
    let mut hash = Sha256::new();
    loop {
        let bytes = io::BufRead::fill_buf(&mut reader)?;
        if bytes.is_empty() {
            return Ok(hash.finalize().into());
        }
        hash.update(bytes);
        let length = bytes.len();
        io::BufRead::consume(&mut reader, length);
    }
}
