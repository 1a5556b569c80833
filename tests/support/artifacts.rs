//! Artifacts made to order, in OCI layouts: any types, annotations and blobs.

use serde_json::{Value, json};

use super::images::Layout;

/// The config of artifacts that have none.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// An artifact, with room for lies.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The config's media type and bytes.
    pub config: (String, Vec<u8>),
    /// The manifest's artifact type.
    pub artifact_type: Option<String>,
    /// Media type, annotations and bytes of each layer.
    pub layers: Vec<(String, Value, Vec<u8>)>,
}

impl Artifact {
    /// One as `oras push` makes it, without layers.
    pub fn new(artifact_type: &str) -> Self {
        let artifact_type = Some(artifact_type.to_owned());
        Self { config: (EMPTY.to_owned(), b"{}".to_vec()), artifact_type, layers: Vec::new() }
    }

    /// With a layer more.
    #[must_use]
    pub fn layer(mut self, media_type: &str, annotations: Value, bytes: &[u8]) -> Self {
        self.layers.push((media_type.to_owned(), annotations, bytes.to_vec()));
        self
    }

    /// With a file more, by its title.
    #[must_use]
    pub fn file(self, title: &str, bytes: &[u8]) -> Self {
        let annotations = json!({"org.opencontainers.image.title": title});
        self.layer("application/octet-stream", annotations, bytes)
    }

    /// With a file of ModelPack more: its path and whether it may be executed.
    #[must_use]
    pub fn model_file(self, path: &str, executable: bool, bytes: &[u8]) -> Self {
        let mode = if executable { 0o755 } else { 0o640 };
        let metadata = json!({"name": path, "mode": mode, "uid": 1234, "gid": 5678, "size": bytes.len(),
                              "mtime": "2021-03-04T05:06:07.123456789Z", "typeflag": 0});
        let annotations = json!({"org.cncf.model.filepath": path,
                                 "org.cncf.model.file.metadata+json": metadata.to_string()});
        self.layer("application/vnd.cncf.model.weight.v1.raw", annotations, bytes)
    }

    /// Adds it to a layout under a tag, and returns the reference.
    pub fn add(&self, layout: &mut Layout, tag: &str) -> String {
        let config = layout.blob(&self.config.0, &self.config.1);
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(media_type, annotations, bytes)| {
                let mut layer = json!(layout.blob(media_type, bytes));
                layer["annotations"] = annotations.clone();
                layer
            })
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        if let Some(named) = &self.artifact_type {
            manifest["artifactType"] = named.as_str().into();
        }
        let descriptor = layout.blob(media_type, manifest.to_string().as_bytes());
        layout.tag(&descriptor, tag);
        layout.reference(tag)
    }
}
