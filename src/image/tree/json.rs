//! A tree as JSON, for programs that read what an image holds.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::arena::NodeKind;
use super::checked::CheckedTree;
use super::walk::{Name, walk};

/// One name of the tree. What a kind of file does not have is left out.
#[derive(Serialize)]
struct File<'a> {
    /// Its path, from `/`; what is not UTF-8 is replaced.
    path: String,
    /// The bytes of a path that is not UTF-8, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    r#type: &'static str,
    /// The permission bits, octal.
    mode: String,
    uid: u32,
    gid: u32,
    /// Seconds since 1970.
    mtime: i64,
    /// Bytes of a file or link target.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// The fs-verity digest of the object with the content; a small file is inside the image instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// What a symbolic link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Number of a device, as in `st_rdev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<u32>,
    /// The first name of the same inode, if this is a further one.
    #[serde(skip_serializing_if = "Option::is_none")]
    hard_link_to: Option<String>,
    /// Extended attributes: names, and values in hexadecimal digits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<std::borrow::Cow<'a, str>, String>,
}

/// Writes `{"files": [...]}`, one object for each name, in order of paths.
///
/// # Errors
/// `out` fails.
pub(in crate::image) fn write_json(tree: &CheckedTree, out: &mut impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    out.write_all(b"{\"files\": [")?;
    let mut separator = "\n  ";
    walk(tree, |name| {
        out.write_all(separator.as_bytes())?;
        separator = ",\n  ";
        Ok::<_, io::Error>(serde_json::to_writer(&mut out, &file(tree, &name))?)
    })?;
    out.write_all(b"\n]}\n")?;
    out.flush()
}

fn file<'a>(tree: &'a CheckedTree, name: &Name<'_>) -> File<'a> {
    let node = tree.node(name.node);
    let stat = &node.stat;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let xattrs = tree.xattrs(stat.xattrs).iter();
    let mut file = File {
        path: text(name.path),
        path_hex: std::str::from_utf8(name.path).err().map(|_| hex::encode(name.path)),
        r#type: "directory",
        mode: format!("{:04o}", stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime.secs,
        size: None,
        object: None,
        target: None,
        device: None,
        hard_link_to: name.first.map(text),
        xattrs: xattrs.map(|(name, value)| (String::from_utf8_lossy(name), hex::encode(value))).collect(),
    };
    match &node.kind {
        NodeKind::Inline(bytes) => (file.r#type, file.size) = ("file", Some(bytes.len() as u64)),
        NodeKind::Object(digest, size) => {
            (file.r#type, file.size, file.object) = ("file", Some(*size), Some(digest.hex()));
        }
        NodeKind::Symlink(target) => {
            (file.r#type, file.size, file.target) =
                ("symlink", Some(target.len() as u64), Some(text(target)));
        }
        NodeKind::CharDevice(number) => (file.r#type, file.device) = ("character_device", Some(*number)),
        NodeKind::BlockDevice(number) => (file.r#type, file.device) = ("block_device", Some(*number)),
        NodeKind::Fifo => file.r#type = "fifo",
        NodeKind::Directory(_) | NodeKind::LeftOut | NodeKind::Pending | NodeKind::Free => {}
    }
    file
}
