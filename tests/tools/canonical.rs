//! The canonical rules give the digests that composefs-rs gives the same image: by the crate's own
//! transformation, by digests recorded from its command `cfsctl`, and by `cfsctl` itself.

use std::path::Path;
use std::process::Command;

use composefs::dumpfile::dumpfile_to_filesystem;
use composefs::erofs::format::FormatVersion;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fsverity::Sha256HashValue;
use composefs::generic_tree::{OciTransformOptions, XattrFiltering};
use composefs_csi::image::composefs::{dump, write_image};
use composefs_csi::image::entry::{EntryKind, LayerEntry, Meta, Mtime};
use composefs_csi::image::tree::{Builder, CheckedTree, Rules, XattrRule};
use composefs_csi::image::verity::VerityDigest;

use crate::support::layout;

const ALLOWLIST: Rules = Rules::Canonical { xattrs: XattrRule::AllowlistOnly };
const KEEP_USER: Rules = Rules::Canonical { xattrs: XattrRule::KeepUser };

/// What `cfsctl` 0.9.4 computes for [`image`], by each rule; see [`cfsctl_still_says_so`].
const RECORDED: [(Rules, &str, &str); 2] = [
    (ALLOWLIST, "allowlist-only", "9a8ae9c9b9fd5139da2271b306e41617703a572b408087999131554fca9333b3"),
    (KEEP_USER, "keep-user-xattrs", "0bffe4a66d56e89a86d7f97efb61ea04b8a94affeea5b3746af5e62a61aae855"),
];

fn entry(path: &str, kind: EntryKind) -> LayerEntry {
    let mark = path.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mtime = Mtime { secs: 1_600_000_000 + i64::from(mark % 100_000), nanos: 0 };
    let meta =
        Meta { mode: 0o600 | mark & 0o77, uid: mark % 70_000, gid: mark % 65_537, mtime, xattrs: vec![] };
    LayerEntry { path: path.as_bytes().into(), meta, kind }
}

fn dir(path: &str) -> LayerEntry {
    let mut dir = entry(path, EntryKind::Directory);
    dir.meta.mode |= 0o700;
    dir
}

fn file(path: &str, content: &str) -> LayerEntry {
    entry(path, EntryKind::Inline(content.as_bytes().into()))
}

fn with_xattrs(mut entry: LayerEntry, names: &[&str]) -> LayerEntry {
    let pair = |name: &&str| (name.as_bytes().into(), b"value".as_slice().into());
    entry.meta.xattrs = names.iter().map(pair).collect();
    entry
}

/// An image whose root, `/run` and attributes the canonical rules change, in the ways that tars of
/// real builders and composefs-rs have in common: parents first, markers first.
fn image() -> Vec<Vec<LayerEntry>> {
    let attributes = ["security.capability", "security.selinux", "user.kept"];
    let symlink = |path: &str, target: &str| entry(path, EntryKind::Symlink(target.as_bytes().into()));
    let mut fraction = file("usr/fraction", "of a second");
    fraction.meta.mtime.nanos = 123_456_789;
    vec![
        vec![
            dir(""),
            with_xattrs(dir("usr"), &attributes),
            dir("usr/bin"),
            with_xattrs(entry("usr/bin/ping", layout::object(70_000, 1)), &attributes),
            entry("usr/bin/ping6", EntryKind::Hardlink(b"usr/bin/ping".as_slice().into())),
            symlink("bin", "usr/bin"),
            fraction,
            file("usr/gone", "soon"),
            dir("usr/emptied"),
            file("usr/emptied/f", "x"),
            dir("run"),
            file("run/secret", "not part of an image"),
            dir("dev"),
            entry("dev/null", EntryKind::CharDevice(1, 3)),
            entry("dev/sda", EntryKind::BlockDevice(8, 0)),
            entry("dev/initctl", EntryKind::Fifo),
        ],
        vec![
            entry("usr/gone", EntryKind::Whiteout),
            entry("usr/emptied", EntryKind::Opaque),
            entry("usr/emptied/new", layout::object(65, 2)),
            file("run/more", "of it"),
            entry("usr/bin/true", EntryKind::Inline(b"".as_slice().into())),
        ],
    ]
}

fn fold(rules: Rules, layers: &[Vec<LayerEntry>]) -> CheckedTree {
    let mut builder = Builder::new(rules);
    for entries in layers {
        let mut layer = builder.layer();
        entries.iter().try_for_each(|entry| layer.apply(entry.clone())).unwrap();
        layer.end().unwrap();
    }
    builder.finish().unwrap()
}

fn text(tree: &CheckedTree) -> String {
    let mut text = Vec::new();
    dump(tree, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The digest of a verbatim tree after the crate's transformation.
fn by_the_crate(layers: &[Vec<LayerEntry>], xattrs: XattrFiltering) -> VerityDigest {
    let faithful = text(&fold(Rules::Verbatim, layers));
    let mut tree = dumpfile_to_filesystem::<Sha256HashValue>(&faithful).unwrap();
    tree.transform_for_oci(&OciTransformOptions { xattrs }).unwrap();
    VerityDigest::of(&mkfs_erofs_versioned(&ValidatedFileSystem::new(tree).unwrap(), FormatVersion::V1))
}

#[test]
fn the_crate_s_transformation_gives_the_same_digest() {
    let layers = image();
    let ours = |rules| write_image(fold(rules, &layers)).unwrap().digest();
    assert_eq!(ours(ALLOWLIST), by_the_crate(&layers, XattrFiltering::AllowlistOnly));
    assert_eq!(ours(KEEP_USER), by_the_crate(&layers, XattrFiltering::KeepUserXattrs));
    // The image is one on which the rules differ, or this would prove nothing.
    assert_ne!(ours(ALLOWLIST), ours(KEEP_USER));
    assert_ne!(ours(KEEP_USER), ours(Rules::Faithful));
}

#[test]
fn the_digests_are_those_recorded_from_cfsctl() {
    for (rules, name, recorded) in RECORDED {
        assert_eq!(write_image(fold(rules, &image())).unwrap().digest().hex(), recorded, "{name}");
    }
}

#[test]
fn the_program_seals_with_what_cfsctl_computes() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let layout = scratch.path().join("image");
    layout::write(&layout, &image());
    let mut seal = Command::new(env!("CARGO_BIN_EXE_composefs-csi"));
    seal.arg("--state-dir").arg(scratch.path().join("state"));
    let output =
        seal.args(["--output", "json", "seal"]).arg(format!("oci:{}", layout.display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sealed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let hex = sealed["manifest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let manifest = std::fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["annotations"]["composefs.merged.erofs.v1.fsverity-sha256-12"], RECORDED[0].2);
}

#[test]
#[ignore = "builds cfsctl, some minutes; `make test-oracle` runs it"]
fn cfsctl_still_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    layout::write(&scratch.path().join("image"), &image());
    crate::support::tools::installed("skopeo");
    let repository = scratch.path().join("repository");
    let source = format!("oci:{}:latest", scratch.path().join("image").display());
    cfsctl(&repository, &["init", "--insecure", "--algorithm", "fsverity-sha256-12"]);
    cfsctl(&repository, &["oci", "pull", &source, "test"]);
    for (rules, name, recorded) in RECORDED {
        let theirs = cfsctl(&repository, &["oci", "dump", "--xattrs", name, "test"]);
        assert_eq!(theirs, text(&fold(rules, &image())), "{name}");
        let digest = cfsctl(&repository, &["oci", "compute-id", "--xattrs", name, "test"]);
        assert_eq!(digest.trim(), recorded, "{name}");
    }
}

fn cfsctl(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new(crate::support::tools::cfsctl())
        .arg("--insecure")
        .arg("--repo")
        .arg(repository)
        .args(arguments)
        .output()
        .expect("cfsctl starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cfsctl {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("text")
}
