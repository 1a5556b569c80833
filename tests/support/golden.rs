//! Trees for the golden tests, and the comparison with the composefs project's own tools.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use composefs_csi::image::composefs::{dump, write_image};
use composefs_csi::image::entry::{Entry, EntryKind, Meta, Mtime};
use composefs_csi::image::tree::{Builder, CheckedTree, Rules};
use composefs_csi::image::verity::VerityDigest;

use super::tools;

/// Held for the whole run: resolving it costs a process.
static MKCOMPOSEFS: LazyLock<std::path::PathBuf> =
    LazyLock::new(|| tools::debian("mkcomposefs", "mkcomposefs"));

/// An entry with plain metadata.
pub fn entry(path: impl AsRef<[u8]>, kind: EntryKind) -> Entry {
    let mtime = Mtime { secs: 1_700_000_000, nanos: 0 };
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime, xattrs: vec![] };
    Entry { path: path.as_ref().into(), meta, kind }
}

/// A directory, 0755.
pub fn dir(path: impl AsRef<[u8]>) -> Entry {
    let mut dir = entry(path, EntryKind::Directory);
    dir.meta.mode = 0o755;
    dir
}

/// A regular file with `size` bytes that depend on `seed`.
pub fn file(path: impl AsRef<[u8]>, size: u64, seed: u8) -> Entry {
    if size <= 64 {
        let content: Vec<u8> = (0..size as u8).map(|at| at.wrapping_mul(37) ^ seed).collect();
        return entry(path, EntryKind::Inline(content.into()));
    }
    let mut digest = [seed; 32];
    digest[24..].copy_from_slice(&size.to_be_bytes());
    entry(path, EntryKind::Object(VerityDigest(digest), size))
}

/// The same entry with one more extended attribute.
pub fn with_xattr(mut entry: Entry, name: &str, value: &[u8]) -> Entry {
    entry.meta.xattrs.push((name.as_bytes().into(), value.into()));
    entry.meta.xattrs.sort();
    entry
}

/// One layer folded with all that it holds.
pub fn tree(entries: &[Entry]) -> CheckedTree {
    let mut builder = Builder::new(Rules::Verbatim);
    let mut layer = builder.layer();
    for entry in entries {
        layer.apply(entry.clone()).expect("an entry that fits");
    }
    layer.end().expect("links with targets");
    builder.finish().expect("a tree")
}

/// The entries without those that a tree refuses after the ones before them.
pub fn fitting(entries: Vec<Entry>) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for entry in entries {
        kept.push(entry);
        let mut builder = Builder::new(Rules::Verbatim);
        let mut layer = builder.layer();
        let applied = kept.iter().try_for_each(|entry| layer.apply(entry.clone()));
        if applied.and_then(|()| layer.end()).and_then(|()| builder.finish().map(drop)).is_err() {
            kept.pop();
        }
    }
    kept
}

/// What our writer, the crate's reader and `mkcomposefs` say about one tree must be the same.
pub fn check(entries: &[Entry]) {
    compare(entries).unwrap_or_else(|difference| panic!("{difference}"));
}

/// The same, for property tests.
pub fn compare(entries: &[Entry]) -> Result<(), String> {
    let tree = tree(entries);
    let mut text = Vec::new();
    dump(&tree, &mut text).map_err(|error| error.to_string())?;
    let ours = write_image(tree).map_err(|error| error.to_string())?;
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = scratch.path().join("image");
    let digest = mkcomposefs(&text, &path)?;
    let theirs = std::fs::read(&path).map_err(|error| error.to_string())?;
    let shown = || String::from_utf8_lossy(&text).chars().take(4000).collect::<String>();
    if *ours.bytes != *theirs {
        let at = ours.bytes.iter().zip(&theirs).position(|(a, b)| a != b);
        let (mine, other) = (ours.bytes.len(), theirs.len());
        return Err(format!(
            "{mine} bytes of ours and {other} of mkcomposefs differ at {at:?}:\n{}",
            shown()
        ));
    }
    if ours.digest().hex() != digest {
        return Err(format!("our digest {} is not mkcomposefs's {digest}:\n{}", ours.digest(), shown()));
    }
    // The crate's reader recurses by directory.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 20);
        let running = thread.spawn_scoped(scope, || reads_back(&text, &ours.bytes));
        running.expect("a thread").join().unwrap_or_else(|_| Err("the crate's reader panicked".to_owned()))
    })
}

/// Writes the image of a dump with the composefs project's C tool, and returns its digest.
fn mkcomposefs(text: &[u8], image: &Path) -> Result<String, String> {
    let mut child = Command::new(&*MKCOMPOSEFS)
        .args(["--min-version=1", "--from-file", "--print-digest", "-"])
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start mkcomposefs: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    // It reads everything before it writes anything.
    stdin.write_all(text).map_err(|error| format!("mkcomposefs does not read: {error}"))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("mkcomposefs: {complaint}\n{}", String::from_utf8_lossy(text)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The crate's reader finds the tree in the image that was put in.
fn reads_back(text: &[u8], image: &[u8]) -> Result<(), String> {
    use composefs::{
        dumpfile::write_dumpfile, erofs::reader::erofs_to_filesystem, fsverity::Sha256HashValue,
    };
    let read = erofs_to_filesystem::<Sha256HashValue>(image).map_err(|error| format!("{error:#}"))?;
    let mut again = Vec::new();
    write_dumpfile(&mut again, &read).map_err(|error| format!("{error:#}"))?;
    if again == text {
        return Ok(());
    }
    let (put, got) = (String::from_utf8_lossy(text), String::from_utf8_lossy(&again));
    let difference = put.lines().zip(got.lines()).find(|(put, got)| put != got);
    Err(format!("the image reads back differently: {difference:?}"))
}
