//! A small writer of zstd:chunked layers, for tests that need a layer of a certain shape. Layers of real tools are made
//! by skopeo (`tools/chunked.rs`). It is part of the library's own tests as well, so it uses nothing of the library.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::Digest as _;

const ANNOTATION: &str = "io.github.containers.zstd-chunked.";

/// A layer, and what its descriptor says of it.
#[derive(Debug, Clone)]
pub struct ChunkedLayer {
    /// The compressed bytes.
    pub blob: Vec<u8>,
    /// The archive in them.
    pub tar: Vec<u8>,
    /// The annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// The two tables, before they were compressed.
    pub toc: Value,
    pub tar_split: String,
    /// Where the frames of files end.
    pub frames: usize,
}

/// How a layer is made.
#[derive(Debug, Clone, Copy)]
pub struct ChunkedRules {
    /// Bytes of a chunk. Real writers cut by content.
    pub chunk: usize,
    /// Runs of zeros of at least so many bytes become chunks of their own.
    pub zeros: usize,
}

impl Default for ChunkedRules {
    fn default() -> Self {
        Self { chunk: 4096, zeros: 1024 }
    }
}

/// `sha256:…`
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// Compresses an archive so that each file and chunk can be fetched alone.
pub fn chunked(tar: &[u8], rules: ChunkedRules) -> ChunkedLayer {
    let (mut blob, mut entries, mut lines, mut raw_from) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let sort = match entry.header().entry_type() {
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            _ => "reg",
        };
        let mode = entry.header().mode().expect("a mode");
        let (start, mut content) = (entry.raw_file_position() as usize, Vec::new());
        if sort != "reg" || entry.size() == 0 {
            entries.push(json!({"type": sort, "name": name, "mode": mode}));
            lines.push(json!({"type": 1, "name": name, "payload": null}));
            continue;
        }
        entry.read_to_end(&mut content).expect("its content");
        push_raw(&mut lines, &tar[raw_from..start]);
        blob.extend(zstd(&tar[raw_from..start]));
        lines.push(json!({"type": 1, "name": name, "size": content.len(), "payload": ""}));
        raw_from = start + content.len();
        let (first, digest) = (blob.len(), sha256(&content));
        let pieces = cut(&content, rules);
        let mut file = json!({
            "type": "reg", "name": name, "mode": mode, "size": content.len(), "digest": digest, "offset": first,
        });
        let mut rest = Vec::new();
        for (number, (at, piece, zeros)) in pieces.iter().enumerate() {
            let mut chunk =
                json!({"chunkSize": piece.len(), "chunkOffset": at, "chunkDigest": sha256(piece)});
            if *zeros {
                chunk["chunkType"] = "zeros".into();
            }
            if number == 0 {
                if pieces.len() > 1 || *zeros {
                    merge(&mut file, chunk);
                }
            } else {
                merge(&mut chunk, json!({"type": "chunk", "name": name, "offset": blob.len()}));
                rest.push(chunk);
            }
            blob.extend(zstd(piece));
        }
        file["endOffset"] = blob.len().into();
        entries.push(file);
        entries.extend(rest);
    }
    push_raw(&mut lines, &tar[raw_from..]);
    blob.extend(zstd(&tar[raw_from..]));
    let mut tar_split = String::new();
    for (position, mut line) in lines.into_iter().enumerate() {
        line["position"] = position.into();
        tar_split.push_str(&line.to_string());
        tar_split.push('\n');
    }
    finish(blob, tar, json!({"version": 1, "entries": entries}), tar_split)
}

/// Puts tables behind the frames of a layer, and says so in its annotations.
pub fn finish(frames: Vec<u8>, tar: &[u8], mut toc: Value, tar_split: String) -> ChunkedLayer {
    let packed_split = zstd(tar_split.as_bytes());
    if toc.get("tarSplitDigest").is_none() {
        toc["tarSplitDigest"] = sha256(&packed_split).into();
    }
    let json = toc.to_string();
    let (packed_toc, end) = (zstd(json.as_bytes()), frames.len());
    let mut blob = frames;
    let toc_at = skippable(&mut blob, &packed_toc);
    let split_at = skippable(&mut blob, &packed_split);
    let numbers = [toc_at, packed_toc.len(), json.len(), 1, split_at, packed_split.len(), tar_split.len()];
    let mut footer: Vec<u8> = numbers.iter().flat_map(|number| (*number as u64).to_le_bytes()).collect();
    footer.extend(b"GNUlInUx");
    skippable(&mut blob, &footer);
    let annotations = [
        ("manifest-checksum", sha256(&packed_toc)),
        ("manifest-position", format!("{toc_at}:{}:{}:1", packed_toc.len(), json.len())),
        ("tarsplit-position", format!("{split_at}:{}:{}", packed_split.len(), tar_split.len())),
    ];
    let annotations = annotations.map(|(name, value)| (format!("{ANNOTATION}{name}"), value)).into();
    ChunkedLayer { blob, tar: tar.to_vec(), annotations, toc, tar_split, frames: end }
}

fn merge(into: &mut Value, from: Value) {
    for (name, value) in from.as_object().expect("an object") {
        into[name] = value.clone();
    }
}

fn push_raw(lines: &mut Vec<Value>, raw: &[u8]) {
    let payload = base64::engine::general_purpose::STANDARD.encode(raw);
    lines.push(json!({"type": 2, "payload": payload}));
}

/// Pieces with their places, and whether they are holes.
fn cut(content: &[u8], rules: ChunkedRules) -> Vec<(usize, &[u8], bool)> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < content.len() {
        let zeros = content[at..].iter().take_while(|byte| **byte == 0).count();
        let length = if zeros >= rules.zeros {
            zeros
        } else {
            let hole = vec![0; rules.zeros];
            let rest = &content[at..content.len().min(at + rules.chunk)];
            let until = rest.windows(rules.zeros).position(|window| window == hole);
            until.filter(|until| *until > 0).unwrap_or(rest.len())
        };
        pieces.push((at, &content[at..at + length], zeros >= rules.zeros));
        at += length;
    }
    pieces
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("zstd")
}

/// Appends a frame that decoders skip. Returns where its content is.
fn skippable(blob: &mut Vec<u8>, content: &[u8]) -> usize {
    blob.extend([0x50, 0x2a, 0x4d, 0x18]);
    blob.extend((content.len() as u32).to_le_bytes());
    let at = blob.len();
    blob.extend(content);
    at
}
