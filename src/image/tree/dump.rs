//! The text form of a tree, as `mkcomposefs --from-file` reads it and `composefs-info dump` prints it
//! (composefs-dump(5)): one line for each inode, hard links as references to the first name.

use std::io::{self, BufWriter, Write};

use super::arena::NodeKind;
use super::checked::CheckedTree;
use super::walk::{Name, walk};

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Writes the composefs dump of a tree, in order of paths.
///
/// # Errors
/// `out` fails.
pub(in crate::image) fn write_dump(tree: &CheckedTree, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    walk(tree, |name| inode(tree, &mut out, &name))?;
    out.flush()
}

fn inode(tree: &CheckedTree, out: &mut impl Write, name: &Name<'_>) -> io::Result<()> {
    let node = tree.node(name.node);
    escaped(out, name.path)?;
    if let Some(first) = name.first {
        // A reference; the fields of the inode are on the line of its first path.
        out.write_all(b" 0 @120000 - - - - 0.0 ")?;
        escaped(out, first)?;
        return out.write_all(b" - -\n");
    }
    let (kind, size, device) = numbers(&node.kind);
    let links = match &node.kind {
        // As stat(2): `.`, the entry in the parent, and `..` of each subdirectory.
        NodeKind::Directory(all) => 2 + all.values().filter(|child| tree.children(**child).is_some()).count(),
        _ => node.links as usize,
    };
    let stat = &node.stat;
    let mode = kind | u32::from(stat.mode);
    let (uid, gid, mtime) = (stat.uid, stat.gid, stat.mtime);
    write!(out, " {size} {mode:o} {links} {uid} {gid} {device} {}.{} ", mtime.secs, mtime.nanos)?;
    match &node.kind {
        NodeKind::Object(digest, _) => {
            let hex = digest.hex();
            write!(out, "{}/{} - {hex}", &hex[..2], &hex[2..])?;
        }
        NodeKind::Symlink(target) => {
            escaped(out, target)?;
            out.write_all(b" - -")?;
        }
        NodeKind::Inline(bytes) => {
            out.write_all(b"- ")?;
            escaped(out, bytes)?;
            out.write_all(b" -")?;
        }
        _ => out.write_all(b"- - -")?,
    }
    for (name, value) in tree.xattrs(stat.xattrs) {
        out.write_all(b" ")?;
        escaped_raw(out, name, true)?;
        out.write_all(b"=")?;
        escaped_raw(out, value, true)?;
    }
    out.write_all(b"\n")
}

/// Type bits, size and device number.
fn numbers(kind: &NodeKind) -> (u32, u64, u32) {
    match kind {
        NodeKind::Inline(bytes) => (S_IFREG, bytes.len() as u64, 0),
        NodeKind::Object(_, size) => (S_IFREG, *size, 0),
        NodeKind::Symlink(target) => (S_IFLNK, target.len() as u64, 0),
        NodeKind::CharDevice(number) => (S_IFCHR, 0, *number),
        NodeKind::BlockDevice(number) => (S_IFBLK, 0, *number),
        NodeKind::Fifo => (S_IFIFO, 0, 0),
        NodeKind::Directory(_) | NodeKind::LeftOut | NodeKind::Pending | NodeKind::Free => (S_IFDIR, 0, 0),
    }
}

/// Writes a field. `-` alone stands for an empty one.
fn escaped(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match bytes {
        b"" => out.write_all(b"-"),
        b"-" => out.write_all(b"\\x2d"),
        _ => escaped_raw(out, bytes, false),
    }
}

/// Writes bytes as C string escapes. An attribute's name and value also escape `=`, which is between them.
fn escaped_raw(out: &mut impl Write, bytes: &[u8], attribute: bool) -> io::Result<()> {
    for byte in bytes {
        match byte {
            b'\\' => out.write_all(b"\\\\")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            b'\t' => out.write_all(b"\\t")?,
            b'=' if attribute => out.write_all(b"\\x3d")?,
            b'!'..=b'~' => out.write_all(&[*byte])?,
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}
