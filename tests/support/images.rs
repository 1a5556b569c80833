//! OCI layouts made to order: any layers, in any compression, under any media type, so that tests
//! can say exactly what an image holds, honest or not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::manifest::Descriptor;
use serde_json::{Value, json};

use super::registry::run;
use super::tools::installed;

/// How a layer's blob is made of its tar archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// One gzip member.
    Gzip,
    /// Several gzip members, as parallel compressors and eStargz write.
    GzipMembers(usize),
    /// One gzip member and so many NULs, as tar programs pad their output.
    GzipPadded(usize),
    /// zstd.
    Zstd,
    /// zstd and so many NULs.
    ZstdPadded(usize),
}

/// Which family of media types an image uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// OCI image-spec.
    Oci,
    /// Docker image manifest v2 schema 2.
    Docker,
}

/// A layer: its tar archive and how to store it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The uncompressed archive; any bytes, for hostile ones.
    pub tar: Vec<u8>,
    /// How it is stored.
    pub compression: Compression,
    /// Another media type than the one that fits.
    pub media_type: Option<String>,
}

impl Layer {
    /// A gzip layer of these bytes.
    pub fn new(tar: Vec<u8>) -> Self {
        Self { tar, compression: Compression::Gzip, media_type: None }
    }

    /// The same layer stored in another way.
    pub fn stored(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    fn blob(&self) -> Vec<u8> {
        match self.compression {
            Compression::None => self.tar.clone(),
            Compression::Gzip => gzip(&self.tar),
            Compression::GzipMembers(members) => {
                let size = self.tar.len().div_ceil(members.max(1)).max(1);
                self.tar.chunks(size).flat_map(gzip).collect()
            }
            Compression::GzipPadded(zeros) => [gzip(&self.tar), vec![0; zeros]].concat(),
            Compression::Zstd => zstd::encode_all(&self.tar[..], 3).expect("zstd compresses"),
            Compression::ZstdPadded(zeros) => {
                let blob = self.clone().stored(Compression::Zstd).blob();
                [blob, vec![0; zeros]].concat()
            }
        }
    }

    fn media_type(&self, flavour: Flavour) -> String {
        let suffix = match (flavour, self.compression) {
            (_, Compression::None) => "",
            (Flavour::Oci, Compression::Zstd | Compression::ZstdPadded(_)) => "+zstd",
            (Flavour::Oci, _) => "+gzip",
            (Flavour::Docker, Compression::Zstd | Compression::ZstdPadded(_)) => ".zstd",
            (Flavour::Docker, _) => ".gzip",
        };
        let base = match flavour {
            Flavour::Oci => "application/vnd.oci.image.layer.v1.tar",
            Flavour::Docker => "application/vnd.docker.image.rootfs.diff.tar",
        };
        self.media_type.clone().unwrap_or_else(|| format!("{base}{suffix}"))
    }
}

/// The whole image, with room for lies.
#[derive(Debug, Clone)]
pub struct Image {
    /// The family of media types.
    pub flavour: Flavour,
    /// `os/architecture[/variant]` of config and index entry.
    pub platform: String,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// DiffIDs to claim instead of the true ones.
    pub diff_ids: Option<Vec<Digest>>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Image {
    /// An honest OCI image of gzip layers for this machine.
    pub fn new(tars: Vec<Vec<u8>>) -> Self {
        Self {
            flavour: Flavour::Oci,
            platform: composefs_csi::oci::platform::Platform::host().to_string(),
            layers: tars.into_iter().map(Layer::new).collect(),
            diff_ids: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A layout directory that goes when dropped.
#[derive(Debug)]
pub struct Layout {
    directory: tempfile::TempDir,
    entries: Vec<Value>,
}

impl Layout {
    /// A layout without images.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("blobs/sha256")).expect("blobs/sha256");
        let layout = Self { directory, entries: Vec::new() };
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        layout.write_index();
        layout
    }

    /// A layout with one image, tagged `latest`.
    pub fn of(image: &Image) -> Self {
        let mut layout = Self::new();
        layout.add(image, "latest");
        layout
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `oci:DIR:TAG`.
    pub fn reference(&self, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path().display())
    }

    /// Adds an image under a tag; returns the descriptor of its manifest.
    pub fn add(&mut self, image: &Image, tag: &str) -> Descriptor {
        let descriptor = self.add_manifest(image);
        self.tag(&descriptor, tag);
        descriptor
    }

    /// Adds an index of images under a tag; returns its descriptor.
    pub fn add_index(&mut self, images: &[Image], tag: &str) -> Descriptor {
        let mut entries = Vec::new();
        for image in images {
            let mut entry = json!(self.add_manifest(image));
            entry["platform"] = platform(&image.platform);
            entries.push(entry);
        }
        let media_type = match images.first().map(|image| image.flavour) {
            Some(Flavour::Docker) => "application/vnd.docker.distribution.manifest.list.v2+json",
            _ => "application/vnd.oci.image.index.v1+json",
        };
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        let descriptor = self.blob(media_type, index.to_string().as_bytes());
        self.tag(&descriptor, tag);
        descriptor
    }

    /// Adds any bytes as a blob.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.write(&format!("blobs/sha256/{}", digest.hex()), bytes);
        let size = bytes.len() as u64;
        Descriptor { media_type: media_type.into(), digest, size, annotations: Default::default() }
    }

    /// Lists a descriptor in `index.json` under a tag.
    pub fn tag(&mut self, descriptor: &Descriptor, tag: &str) {
        let mut entry = json!(descriptor);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.entries.push(entry);
        self.write_index();
    }

    /// Adds an image's blobs and manifest without listing it in `index.json`.
    pub fn add_manifest(&self, image: &Image) -> Descriptor {
        let (manifest, config) = match image.flavour {
            Flavour::Oci => {
                ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json")
            }
            Flavour::Docker => (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            ),
        };
        let layers: Vec<Descriptor> = image
            .layers
            .iter()
            .map(|layer| self.blob(&layer.media_type(image.flavour), &layer.blob()))
            .collect();
        let honest = || image.layers.iter().map(|layer| Digest::of(&layer.tar)).collect();
        let diff_ids: Vec<Digest> = image.diff_ids.clone().unwrap_or_else(honest);
        let mut document = platform(&image.platform);
        document["config"] = json!({});
        document["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = self.blob(config, document.to_string().as_bytes());
        let mut document = json!({"schemaVersion": 2, "mediaType": manifest,
                                  "config": config, "layers": layers});
        if !image.annotations.is_empty() {
            document["annotations"] = json!(image.annotations);
        }
        self.blob(manifest, document.to_string().as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        self.write("index.json", index.to_string().as_bytes());
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self::new()
    }
}

/// A layout whose one image, tagged `latest`, has one layer per directory.
pub fn layout_from_dirs(directories: &[&Path]) -> Layout {
    Layout::of(&Image::new(directories.iter().map(|directory| tar_of(directory)).collect()))
}

/// The PAX archive that GNU tar makes of a directory's content, with xattrs, sorted by name.
pub fn tar_of(directory: &Path) -> Vec<u8> {
    let mut tar = Command::new(installed("tar"));
    tar.args(["--create", "--format=pax", "--sort=name", "--xattrs", "--xattrs-include=*"]);
    run(tar.args(["--numeric-owner", "--sparse"]).arg("-C").arg(directory).arg("."))
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes.as_ref()).and_then(|()| encoder.finish()).expect("gzip compresses")
}

fn platform(text: &str) -> Value {
    let mut parts = text.split('/');
    let mut next = || parts.next().unwrap_or_default();
    let mut value = json!({"os": next(), "architecture": next()});
    match next() {
        "" => {}
        variant => value["variant"] = variant.into(),
    }
    value
}
