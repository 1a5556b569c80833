//! Writes OCI image layouts: gzip layers streamed into their blobs, a config, a manifest, an index.
//!
//! The same input gives the same digests: the output does not depend on this machine's clock or users.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tarball::{Member, Tarball};

/// An image layout directory.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    tags: Vec<Value>,
}

/// What was written for one image.
#[derive(Debug, Clone)]
pub struct Image {
    pub manifest_digest: String,
    /// Bytes of the layers as they are stored and fetched.
    pub compressed: u64,
    /// Files of all layers, and the bytes in them.
    pub files: u64,
    pub content: u64,
    /// The space of those files on a disk with 4 KiB blocks.
    pub blocks: u64,
}

/// A layer that is complete.
#[derive(Debug, Clone)]
pub struct Layer {
    descriptor: Value,
    diff_id: String,
    compressed: u64,
    files: u64,
    content: u64,
    blocks: u64,
}

/// A layer being written.
pub struct LayerWriter {
    tar: Tarball<Hashing<GzEncoder<Hashing<BufWriter<File>>>>>,
    blobs: PathBuf,
    files: u64,
    content: u64,
    blocks: u64,
}

impl Layout {
    /// Starts a layout in `root`; existing content is replaced.
    pub fn create(root: &Path) -> io::Result<Self> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        fs::create_dir_all(root.join("blobs/sha256"))?;
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { root: root.to_owned(), tags: Vec::new() })
    }

    /// Starts a layer.
    pub fn layer(&self) -> io::Result<LayerWriter> {
        let blobs = self.root.join("blobs/sha256");
        let blob = Hashing::new(BufWriter::with_capacity(1 << 20, File::create(blobs.join("writing"))?));
        let gzip = GzEncoder::new(blob, Compression::new(6));
        Ok(LayerWriter { tar: Tarball::new(Hashing::new(gzip)), blobs, files: 0, content: 0, blocks: 0 })
    }

    /// Writes config, manifest and index entry of an image of `layers`.
    pub fn image(&mut self, tag: &str, layers: &[Layer]) -> io::Result<Image> {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": architecture(),
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let descriptors: Vec<&Value> = layers.iter().map(|layer| &layer.descriptor).collect();
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": descriptors,
        });
        let mut descriptor = self.blob("application/vnd.oci.image.manifest.v1+json", &manifest)?;
        let manifest_digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.tags.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.tags });
        fs::write(self.root.join("index.json"), index.to_string())?;
        let sum = |field: fn(&Layer) -> u64| layers.iter().map(field).sum();
        Ok(Image {
            manifest_digest,
            compressed: sum(|layer| layer.compressed),
            files: sum(|layer| layer.files),
            content: sum(|layer| layer.content),
            blocks: sum(|layer| layer.blocks),
        })
    }

    fn blob(&self, media_type: &str, value: &Value) -> io::Result<Value> {
        let text = value.to_string();
        let digest = hex::encode(Sha256::digest(text.as_bytes()));
        fs::write(self.root.join("blobs/sha256").join(&digest), &text)?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": text.len() }))
    }
}

impl LayerWriter {
    /// Appends a member to the layer.
    pub fn append(&mut self, member: &Member, content: impl Read) -> io::Result<()> {
        if member.kind == super::tarball::Kind::File {
            self.files += 1;
            self.content += member.size;
            self.blocks += member.size.next_multiple_of(4096);
        }
        self.tar.append(member, content)
    }

    /// Ends the layer and names its blob by its digest.
    pub fn finish(self) -> io::Result<Layer> {
        let (gzip, diff_id, _) = self.tar.finish()?.finish();
        let (mut file, digest, compressed) = gzip.finish()?.finish();
        file.flush()?;
        fs::rename(self.blobs.join("writing"), self.blobs.join(&digest))?;
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        Ok(Layer {
            descriptor: json!({
                "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": compressed
            }),
            diff_id: format!("sha256:{diff_id}"),
            compressed,
            files: self.files,
            content: self.content,
            blocks: self.blocks,
        })
    }
}

/// Hashes and counts the bytes that pass through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, hex::encode(self.hash.finalize()), self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// This machine's architecture by the name that images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
