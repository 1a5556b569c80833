//! Memory of the step from entries to image, in a process of its own: what a file takes, at most and usually.
//!
//! A test binary of its own, because pages of the binary count as well: those of the tier `pure`, with its relocations,
//! are 13 MiB more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use composefs_csi::image::composefs::{Image, each_entry, write_image};
use composefs_csi::image::entry::{EntryKind, LayerEntry, Meta, Mtime, Xattr};
use composefs_csi::image::tree::{Builder, CheckedTree, Combiner, Rules, Stop};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::oci::limits::ImageLimits;

#[path = "support/mod.rs"]
mod support;

use support::again::again;
use support::process::peak_memory;

/// In the environment of the process that is measured: how many files.
const FILES: &str = "IMAGE_MEMORY_FILES";
/// The same: `worst` for files at all caps, `combined` for what is read from an image again, `labelled` for
/// files with the same 30 KB of attributes.
const SHAPE: &str = "IMAGE_MEMORY_SHAPE";

#[test]
fn fifty_eight_thousand_files() {
    assert!(peak(58_000) < 20 << 20);
}

#[test]
fn three_hundred_thousand_files() {
    assert!(peak(300_000) < 300_000 * 260);
}

/// Layers can give many files the same attributes, which are in the tree and in the image once.
#[test]
fn files_with_the_same_large_attributes() {
    assert!(peak_of(58_000, "labelled") < 20 << 20);
}

/// A combined image is made of what is read from images, each of which is in memory whole, and read by the composefs crate.
#[test]
fn an_image_read_again() {
    assert!(peak_of(58_000, "combined") < 58_000 * 1_100);
}

/// What an image at all caps takes, in proportion: a 16th of the inodes, of the metadata and of the attributes.
#[test]
fn an_image_at_all_caps() {
    let peak = peak_of((ImageLimits::DEFAULT.inodes / 16) as u64, "worst");
    let limit = ImageLimits::BUILD_MEMORY / 16;
    assert!(peak < limit, "{peak} bytes, and a 16th of the promise is {limit}");
}

/// Peak memory in bytes of a process that builds an image of so many files.
fn peak(files: u64) -> u64 {
    peak_of(files, "usual")
}

fn peak_of(files: u64, shape: &str) -> u64 {
    let output = again(module_path!(), "measured_process")
        .env(FILES, files.to_string())
        .env(SHAPE, shape)
        .output()
        .expect("this test starts again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let peak = text.lines().find_map(|line| line.strip_prefix("peak "));
    let peak = peak.unwrap_or_else(|| panic!("no figure from the measured process: {text}{complaint}"));
    println!(
        "{files} files ({shape}): peak {} KiB, {} bytes a file",
        peak.parse::<u64>().unwrap() >> 10,
        peak.parse::<u64>().unwrap() / files
    );
    peak.parse().expect("bytes")
}

/// Does nothing by itself; with the variable set it is the process that is measured.
#[test]
fn measured_process() {
    let Ok(files) = std::env::var(FILES) else { return };
    let files: u64 = files.parse().expect("a number");
    let tree = match std::env::var(SHAPE).as_deref() {
        Ok("worst") => at_all_caps(files),
        Ok("combined") => combined(&write_image(folded(files, &[])).expect("an image").bytes),
        Ok("labelled") => folded(files, &[((*b"user.label").into(), vec![7; 30_000].into())]),
        _ => folded(files, &[]),
    };
    let image = Image::of(tree).expect("an image");
    // Its bytes are made once more when it is stored.
    let mut bytes = 0;
    let Ok(()) = image.each_piece(|piece| {
        bytes += piece.len() as u64;
        Ok::<_, std::convert::Infallible>(())
    });
    assert_eq!(bytes, image.size());
    assert!(image.inodes() > files);
    println!("\npeak {}", peak_memory());
}

fn folded(files: u64, xattrs: &[Xattr]) -> CheckedTree {
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    for at in 0..files {
        let mtime = Mtime { secs: 1_700_000_000 + (at % 1000) as i64, nanos: 0 };
        let path = format!("usr/share/package-{:05}/some-file-name-{at:07}.txt", at / 50);
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        digest[8..16].copy_from_slice(&at.to_le_bytes());
        let entry = LayerEntry {
            path: path.into_bytes().into(),
            meta: Meta { mode: 0o644, mtime, xattrs: xattrs.to_vec(), ..Meta::default() },
            kind: EntryKind::Object(VerityDigest(digest), 100 + at),
        };
        layer.apply(entry).expect("an entry that fits");
    }
    layer.end().expect("no links");
    builder.finish().expect("a tree")
}

fn combined(image: &[u8]) -> CheckedTree {
    let mut combiner = Combiner::new(ImageLimits::DEFAULT, &Stop::default());
    combiner.begin("the image", b"");
    each_entry(image, b"", |entry| combiner.add(entry)).expect("our own image").expect("one image");
    combiner.finish()
}

/// Names, targets of links and sets of attributes as large as the caps allow for so many files.
fn at_all_caps(files: u64) -> CheckedTree {
    let limits = ImageLimits::DEFAULT;
    let share = |bytes: usize| bytes / limits.inodes;
    let xattr = share(limits.image_xattr_bytes);
    // A name has 255 bytes at most; the target of a link takes the rest.
    let name = (share(limits.metadata_bytes) - xattr).min(255);
    let target = share(limits.metadata_bytes) - xattr - name;
    let mut builder = Builder::new(Rules::Verbatim);
    let mut layer = builder.layer();
    for at in 0..files {
        let path = format!("d{:06}/{at:0name$}", at / 1000);
        let value = format!("{at:0width$}", width = xattr - b"user.a".len());
        let xattrs = vec![((*b"user.a").into(), value.into_bytes().into())];
        let mtime = Mtime { secs: at as i64, nanos: 1 };
        let entry = LayerEntry {
            path: path.into_bytes().into(),
            meta: Meta { mode: 0o644, mtime, xattrs, ..Meta::default() },
            kind: EntryKind::Symlink(format!("{at:0target$}").into_bytes().into()),
        };
        layer.apply(entry).expect("an entry that fits");
    }
    layer.end().expect("no links");
    builder.finish().expect("a tree")
}
