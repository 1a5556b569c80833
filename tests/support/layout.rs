//! OCI image layouts written from entries, for foreign tools to read: plain tar layers, everything
//! that does not fit a ustar header in PAX records.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use composefs_csi::image::entry::{EntryKind, LayerEntry};
use composefs_csi::image::verity::VerityDigest;
use sha2::{Digest, Sha256};

/// Contents of the objects that entries name.
static CONTENTS: LazyLock<Mutex<HashMap<VerityDigest, Vec<u8>>>> = LazyLock::new(Mutex::default);

/// A file of more than 64 bytes, with a content that depends on `seed`.
pub fn object(size: usize, seed: u8) -> EntryKind {
    let content: Vec<u8> = (0..size).map(|at| (at / 7) as u8 ^ seed).collect();
    let digest = VerityDigest::of(&content);
    CONTENTS.lock().expect("no panic").insert(digest, content);
    EntryKind::Object(digest, size as u64)
}

/// Writes a layout with one image, tagged `latest`.
pub fn write(dir: &Path, layers: &[Vec<LayerEntry>]) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a directory");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    let tars: Vec<(String, usize)> = layers.iter().map(|entries| blob(dir, &tar(entries))).collect();
    let diff_ids: Vec<&String> = tars.iter().map(|(digest, _)| digest).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let (digest, size) = blob(dir, config.to_string().as_bytes());
    let descriptor = |kind: &str, digest: &str, size: usize| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let layers: Vec<_> =
        tars.iter().map(|(digest, size)| descriptor("layer.v1.tar", digest, *size)).collect();
    let config = descriptor("config.v1+json", &digest, size);
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let (digest, size) = blob(dir, manifest.to_string().as_bytes());
    let mut manifest = descriptor("manifest.v1+json", &digest, size);
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).expect("written");
}

fn blob(dir: &Path, bytes: &[u8]) -> (String, usize) {
    let hex = hex::encode(Sha256::digest(bytes));
    fs::write(dir.join("blobs/sha256").join(&hex), bytes).expect("written");
    (format!("sha256:{hex}"), bytes.len())
}

/// A layer's tar.
pub fn tar(entries: &[LayerEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        member(&mut out, entry);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn member(out: &mut Vec<u8>, entry: &LayerEntry) {
    let (kind, target, device, content): (u8, &[u8], (u32, u32), Vec<u8>) = match &entry.kind {
        EntryKind::Directory => (b'5', b"", (0, 0), vec![]),
        EntryKind::Inline(bytes) => (b'0', b"", (0, 0), bytes.to_vec()),
        EntryKind::Object(digest, _) => {
            (b'0', b"", (0, 0), CONTENTS.lock().expect("no panic")[digest].clone())
        }
        EntryKind::Symlink(target) => (b'2', target, (0, 0), vec![]),
        EntryKind::Hardlink(target) => (b'1', target, (0, 0), vec![]),
        EntryKind::CharDevice(major, minor) => (b'3', b"", (*major, *minor), vec![]),
        EntryKind::BlockDevice(major, minor) => (b'4', b"", (*major, *minor), vec![]),
        EntryKind::Fifo => (b'6', b"", (0, 0), vec![]),
        EntryKind::LeftOut(_) => panic!("no archive has a file without its content"),
        EntryKind::Whiteout | EntryKind::Opaque => (b'0', b"", (0, 0), vec![]),
    };
    let path = path(entry);
    let meta = &entry.meta;
    let mut records = Vec::new();
    record(&mut records, b"path", &path);
    if !target.is_empty() {
        record(&mut records, b"linkpath", target);
    }
    record(&mut records, b"mtime", format!("{}.{:09}", meta.mtime.secs, meta.mtime.nanos).as_bytes());
    record(&mut records, b"uid", meta.uid.to_string().as_bytes());
    record(&mut records, b"gid", meta.gid.to_string().as_bytes());
    for (name, value) in &meta.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &**name].concat(), value);
    }
    header(out, b'x', 0o644, records.len(), (0, 0));
    body(out, &records);
    header(out, kind, meta.mode, content.len(), device);
    body(out, &content);
}

/// The member's name: markers are files of their own, the root is `./`.
fn path(entry: &LayerEntry) -> Vec<u8> {
    let (parent, name) = match entry.path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => entry.path.split_at(slash + 1),
        None => (&[][..], &*entry.path),
    };
    match entry.kind {
        EntryKind::Whiteout => [parent, b".wh.", name].concat(),
        EntryKind::Opaque if entry.path.is_empty() => b".wh..wh..opq".to_vec(),
        EntryKind::Opaque => [&entry.path, &b"/.wh..wh..opq"[..]].concat(),
        EntryKind::Directory if entry.path.is_empty() => b"./".to_vec(),
        EntryKind::Directory => [&entry.path, &b"/"[..]].concat(),
        _ => entry.path.to_vec(),
    }
}

/// `length key=value\n`, the length counting itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length =
        (1..=20).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    out.extend_from_slice(length.expect("a length").to_string().as_bytes());
    out.extend_from_slice(&[b" ", key, b"=", value, b"\n"].concat());
}

fn header(out: &mut Vec<u8>, kind: u8, mode: u32, size: usize, (major, minor): (u32, u32)) {
    let mut block = [0u8; 512];
    let mut put = |at: usize, text: String| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "member".to_owned());
    put(100, format!("{mode:07o}"));
    put(108, "0000000".to_owned());
    put(116, "0000000".to_owned());
    put(124, format!("{size:011o}"));
    put(136, "00000000000".to_owned());
    put(148, " ".repeat(8));
    put(156, char::from(kind).to_string());
    put(257, "ustar\u{0}00".to_owned());
    put(329, format!("{major:07o}"));
    put(337, format!("{minor:07o}"));
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

fn body(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}
