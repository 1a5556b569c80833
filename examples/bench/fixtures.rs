//! The images that are measured, made once and kept in the cache directory.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::packages;
use crate::support::layout::{Image, Layer, Layout};
use crate::support::tarball::{Kind, Member};
use crate::support::walk::{Edit, Limit, Walk, as_it_is};

/// Raised when the images change, so that old ones are not measured.
const VERSION: u64 = 3;

/// Every image, in the layout and in the registry.
pub const TAGS: [&str; 6] = ["v1", "v2", "middle", "half", "whole", "tiny"];

/// An image's tag and size.
#[derive(Debug, Clone)]
pub struct Fixture {
    pub tag: String,
    pub files: u64,
    pub content: u64,
    pub compressed: u64,
}

/// All images.
#[derive(Debug)]
pub struct Fixtures {
    all: Vec<Fixture>,
}

impl Fixtures {
    /// Finds the images in `cache/layout`, or makes them.
    pub fn prepare(cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache)?;
        let list = cache.join("fixtures.json");
        if let Some(all) = fs::read(&list).ok().and_then(|text| parse(&text)) {
            return Ok(Self { all });
        }
        let all = make(cache)?;
        let text: Vec<Value> = all
            .iter()
            .map(
                |f| json!({"tag": f.tag, "files": f.files, "content": f.content, "compressed": f.compressed}),
            )
            .collect();
        fs::write(&list, json!({ "version": VERSION, "images": text }).to_string())?;
        Ok(Self { all })
    }

    /// The image with this tag.
    pub fn get(&self, tag: &str) -> Result<&Fixture> {
        self.all.iter().find(|fixture| fixture.tag == tag).with_context(|| format!("no image {tag}"))
    }
}

fn parse(text: &[u8]) -> Option<Vec<Fixture>> {
    let value: Value = serde_json::from_slice(text).ok()?;
    if value["version"] != VERSION {
        return None;
    }
    let image = |image: &Value| {
        Some(Fixture {
            tag: image["tag"].as_str()?.to_owned(),
            files: image["files"].as_u64()?,
            content: image["content"].as_u64()?,
            compressed: image["compressed"].as_u64()?,
        })
    };
    value["images"].as_array()?.iter().map(image).collect()
}

fn make(cache: &Path) -> Result<Vec<Fixture>> {
    let all_layers = packages::unpack(cache, &["system", "toolchain", "application"])?;
    let two_layers = packages::unpack(cache, &["system", "libraries"])?;
    let mut layout = Layout::create(&cache.join("layout"))?;
    let mut all = Vec::new();
    for tag in TAGS {
        eprintln!("bench: writing image {tag}");
        let layers: Vec<Layer> = match tag {
            "v1" => from_packages(&layout, &all_layers, &as_it_is)?,
            "v2" => from_packages(&layout, &all_layers, &rebuilt)?,
            "middle" => from_packages(&layout, &two_layers, &as_it_is)?,
            "half" => vec![generated(&layout, 10_000, 32 << 10)?],
            "whole" => vec![generated(&layout, 10_000, 64 << 10)?],
            _ => vec![generated(&layout, 300_000, 100)?],
        };
        let Image { files, content, compressed, .. } = layout.image(tag, &layers)?;
        all.push(Fixture { tag: tag.to_owned(), files, content, compressed });
    }
    Ok(all)
}

fn from_packages(layout: &Layout, directories: &[std::path::PathBuf], edit: Edit<'_>) -> Result<Vec<Layer>> {
    directories
        .iter()
        .map(|directory| {
            let mut layer = layout.layer()?;
            Walk::new(&mut layer, Limit::NONE, edit).add(directory, Path::new(""))?;
            Ok(layer.finish()?)
        })
        .collect()
}

/// The effect of a rebuild on another day: other times everywhere, so that no layer is the same, and a tenth of the
/// files changed. (The remainder is chosen so that they are also a tenth of the bytes.)
fn rebuilt(member: &mut Member) -> &'static [u8] {
    member.mtime += 86_400;
    let hash =
        member.path.iter().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    if member.kind == Kind::File && hash % 10 == 3 { b"\n# rebuilt\n" } else { b"" }
}

/// `files` files of `size` bytes each, 300 to a directory.
fn generated(layout: &Layout, files: u64, size: u64) -> io::Result<Layer> {
    let mut layer = layout.layer()?;
    // cfsctl refuses images without /usr.
    let member = |path: String, kind, mode, size| Member {
        path: path.into_bytes(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        size,
    };
    layer.append(&member("usr".to_owned(), Kind::Directory, 0o755, 0), io::empty())?;
    for number in 0..files {
        let directory = format!("usr/d{:04}", number / 300);
        if number % 300 == 0 {
            layer.append(&member(directory.clone(), Kind::Directory, 0o755, 0), io::empty())?;
        }
        let name = format!("{directory}/file-{number:06}");
        layer.append(&member(name, Kind::File, 0o644, size), Noise::new(number))?;
    }
    layer.finish()
}

/// An endless stream of bytes that differs for each seed and compresses to about a half (hexadecimal digits).
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for chunk in buffer.chunks_mut(16) {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let digits = format!("{:016x}", self.0);
            chunk.copy_from_slice(&digits.as_bytes()[..chunk.len()]);
        }
        Ok(buffer.len())
    }
}
