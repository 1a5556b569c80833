//! Memory of the step from entries to image, in a process of its own: the peak must leave room below
//! the 160 MiB that a pull of 50,000 files may take, and below 3 KB a file where files are many.
//!
//! A test binary of its own, because pages of the binary count as well: those of the tier `pure`, with its relocations,
//! are 13 MiB more.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use composefs_csi::image::composefs::write_image;
use composefs_csi::image::entry::{EntryKind, LayerEntry, Meta, Mtime};
use composefs_csi::image::tree::{Builder, Rules};
use composefs_csi::image::verity::VerityDigest;

#[path = "support/mod.rs"]
mod support;

use support::again::again;
use support::process::peak_memory;

/// In the environment of the process that is measured: how many files.
const FILES: &str = "IMAGE_MEMORY_FILES";

#[test]
fn fifty_eight_thousand_files() {
    assert!(peak(58_000) < 110 << 20);
}

#[test]
fn three_hundred_thousand_files() {
    assert!(peak(300_000) < 300_000 * 2_000);
}

/// Peak memory in bytes of a process that builds an image of so many files.
fn peak(files: u64) -> u64 {
    let output = again(module_path!(), "measured_process")
        .env(FILES, files.to_string())
        .output()
        .expect("this test starts again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let peak = text.lines().find_map(|line| line.strip_prefix("peak "));
    let peak = peak.unwrap_or_else(|| panic!("no figure from the measured process: {text}{complaint}"));
    println!(
        "{files} files: peak {} KiB, {} bytes a file",
        peak.parse::<u64>().unwrap() >> 10,
        peak.parse::<u64>().unwrap() / files
    );
    peak.parse().expect("bytes")
}

/// Does nothing by itself; with the variable set it is the process that is measured.
#[test]
fn measured_process() {
    let Ok(files) = std::env::var(FILES) else { return };
    let image = write_image(folded(files.parse().expect("a number"))).expect("an image");
    assert!(image.inodes > files.parse().expect("a number"));
    println!("\npeak {}", peak_memory());
}

fn folded(files: u64) -> composefs_csi::image::tree::CheckedTree {
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
            meta: Meta { mode: 0o644, mtime, ..Meta::default() },
            kind: EntryKind::Object(VerityDigest(digest), 100 + at),
        };
        layer.apply(entry).expect("an entry that fits");
    }
    layer.end().expect("no links");
    builder.finish().expect("a tree")
}
