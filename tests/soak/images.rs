//! The images of the soak: small, many, and with files in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use composefs_csi::oci::digest::Digest;

use crate::support::archive::{archive, noise};
use crate::support::images::{Image, Layer, Layout};

/// How many images there are.
pub const COUNT: usize = 40;
/// How many different files the images are made of.
const FILES: usize = 200;
/// How many of them are in one image, in two layers.
const FILES_EACH: usize = 24;

/// What a pod must see: the digest of each file, by its path in the image.
pub type Contents = BTreeMap<PathBuf, Digest>;

/// The images, in one layout on disk: tags `0`, `1`, ….
#[derive(Debug)]
pub struct Catalogue {
    layout: Layout,
    images: Vec<Made>,
}

/// An image as it was made.
#[derive(Debug)]
pub struct Made {
    pub manifest: Digest,
    pub contents: Contents,
}

impl Catalogue {
    /// Makes the images. The same ones each time.
    pub fn make() -> Self {
        let mut layout = Layout::new();
        let images = (0..COUNT).map(|number| make(&mut layout, number)).collect();
        Self { layout, images }
    }

    /// Image `number`.
    pub fn image(&self, number: usize) -> &Made {
        &self.images[number]
    }

    /// The bytes of a blob or manifest.
    pub fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        std::fs::read(self.layout.path().join("blobs").join(digest.replacen(':', "/", 1))).ok()
    }
}

fn make(layout: &mut Layout, number: usize) -> Made {
    let mut contents = Contents::new();
    let layers = (0..2).map(|layer| {
        let files: Vec<(String, Vec<u8>)> = (0..FILES_EACH / 2)
            .map(|at| {
                // Neighbours have half of their files in common, under other names.
                let file = (number * FILES_EACH / 2 + layer * FILES_EACH / 2 + at) % FILES;
                (format!("{layer}/of-{number}-{at}"), content(file))
            })
            .collect();
        for (name, content) in &files {
            contents.insert(PathBuf::from(name), Digest::of(content));
        }
        let members: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (&**name, &**content)).collect();
        Layer::new(archive(&members))
    });
    let image = Image { layers: layers.collect(), ..Image::new(Vec::new()) };
    let manifest = layout.add(&image, &number.to_string()).digest;
    Made { manifest, contents }
}

/// From nothing to a megabyte and a half.
fn content(file: usize) -> Vec<u8> {
    noise(&format!("soak {file}"), file * file * 37)
}

/// What is below `root`, or why it cannot be read.
pub fn read(root: &Path) -> std::io::Result<Contents> {
    let mut found = Contents::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let content = std::fs::read(&path)?;
                found.insert(path.strip_prefix(root).expect("below").to_owned(), Digest::of(&content));
            }
        }
    }
    Ok(found)
}
