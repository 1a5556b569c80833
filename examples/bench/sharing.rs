//! Memory of many pods: whether each page of a shared file is in memory exactly once.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::support::frames::{self, files};
use crate::support::node::{Node, Volume};

/// Files up to this size are in the composefs image itself, not in an object (the format's constant).
const INLINE: u64 = 64;

/// The memory of the files of fifty pods.
#[derive(Debug)]
pub struct Sharing {
    pub pods: usize,
    pub images: usize,
    /// Page frames that the kernel uses for all files of all pods.
    pub frames: u64,
    /// One page for each 4 KiB of each distinct content, and of each image's inline files.
    pub expected: u64,
    /// The pages of each image's files, added up: sharing between pods of an image but not between images.
    pub by_image: u64,
    /// Bytes in files whose content is in both images, out of the first image's bytes.
    pub common: f64,
}

/// Publishes `images` to `pods` pods in turn, reads every file in every pod and counts page frames.
pub fn measure(program: &Path, base: &Path, registry: &str, images: &[String], pods: u32) -> Result<Sharing> {
    let mut node = Node::start(program, base, &["--insecure-registry", registry])?;
    let mut volumes = Vec::new();
    for (number, image) in (0..pods).zip(images.iter().cycle()) {
        let volume = Volume::new("pod", number, image);
        node.publish(&volume)?;
        volumes.push(volume);
    }
    let targets: Vec<PathBuf> = volumes.iter().map(|volume| node.target(volume)).collect();
    let contents: Vec<Contents> =
        targets.iter().take(images.len()).map(|target| contents(target)).collect::<Result<_>>()?;
    let mut groups: HashMap<[u8; 32], Vec<(usize, PathBuf)>> = HashMap::new();
    for (number, target) in targets.iter().enumerate() {
        for (path, (digest, ..)) in &contents[number % images.len()].files {
            groups.entry(*digest).or_default().push((number, target.join(path)));
        }
    }
    let count = frames::count(targets.len(), groups.into_values())?;
    for volume in &volumes {
        node.unpublish(volume)?;
    }
    node.stop()?;
    Ok(Sharing {
        pods: targets.len(),
        images: images.len(),
        frames: count.frames(),
        expected: expected(&contents),
        by_image: count.seen.iter().take(images.len()).sum(),
        common: common(&contents),
    })
}

/// The content of an image's files.
#[derive(Debug)]
struct Contents {
    /// By path: the content's digest and the file's size and inode.
    files: BTreeMap<PathBuf, ([u8; 32], u64, u64)>,
}

fn contents(target: &Path) -> Result<Contents> {
    let mut all = BTreeMap::new();
    for path in files(target)? {
        let mut file = File::open(target.join(&path))?;
        let metadata = file.metadata()?;
        let mut hash = Sha256::new();
        std::io::copy(&mut file, &mut Writer(&mut hash)).with_context(|| format!("cannot read {path:?}"))?;
        all.insert(path, (hash.finalize().into(), metadata.size(), metadata.ino()));
    }
    Ok(Contents { files: all })
}

struct Writer<'a>(&'a mut Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn pages(size: u64) -> u64 {
    size.div_ceil(rustix::param::page_size() as u64)
}

fn expected(images: &[Contents]) -> u64 {
    let mut objects = HashMap::new();
    let mut inline = 0;
    for image in images {
        let mut inodes = HashMap::new();
        for (digest, size, inode) in image.files.values() {
            if *size > INLINE {
                objects.insert(*digest, pages(*size));
            } else {
                inodes.insert(*inode, pages(*size));
            }
        }
        inline += inodes.values().sum::<u64>();
    }
    objects.values().sum::<u64>() + inline
}

/// The share of the last image's bytes whose content is also in the first one.
fn common(images: &[Contents]) -> f64 {
    let (Some(first), Some(last)) = (images.first(), images.last()) else { return 1.0 };
    let known: HashMap<_, _> = first.files.values().map(|(digest, size, _)| (*digest, *size)).collect();
    let sizes = |shared: bool| -> u64 {
        let wanted = last.files.values().filter(|(digest, ..)| !shared || known.contains_key(digest));
        wanted.map(|(_, size, _)| size).sum()
    };
    sizes(true) as f64 / sizes(false).max(1) as f64
}
