//! Which kind of artifact a manifest is, and what its layers are.

use super::{Descriptor, LayerCompression, LayerForm};

/// Whose conventions an artifact follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArtifactKind {
    /// CNCF ModelPack, also by its older names.
    ModelPack,
    /// KitOps' ModelKit.
    KitOps,
    /// Docker Model Runner.
    Docker,
    /// Ollama, whose manifests call their config that of a Docker image.
    Ollama,
    /// A Helm chart.
    Helm,
    /// A WebAssembly component.
    Wasm,
    /// Any other: files as `oras` and `podman artifact` push them.
    Other,
}

/// The type of the empty JSON document, which stands for "nothing" (OCI image-spec 1.1, manifest.md).
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const OLLAMA: &str = "application/vnd.ollama.image.";

impl ArtifactKind {
    /// The kind of a manifest whose config has another type than an image's.
    pub(super) fn of(config_type: &str, artifact_type: Option<&str>) -> Self {
        // Before image-spec 1.1 the type of the config was the type of the artifact.
        let effective = artifact_type.filter(|named| !named.is_empty()).unwrap_or(config_type);
        match effective {
            "application/vnd.cncf.model.manifest.v1+json"
            | "application/vnd.cncf.model.config.v1+json"
            | "application/vnd.cnai.model.manifest.v1+json"
            | "application/vnd.cnai.model.config.v1+json" => Self::ModelPack,
            "application/vnd.cncf.helm.config.v1+json" => Self::Helm,
            "application/vnd.wasm.config.v0+json" => Self::Wasm,
            kit if kit.starts_with("application/vnd.kitops.modelkit.") => Self::KitOps,
            docker if docker.starts_with("application/vnd.docker.ai.model.config.") => Self::Docker,
            _ => Self::Other,
        }
    }

    /// The kind of a manifest whose config has an image's type and whose layers have not.
    pub(super) fn disguised<'a>(mut layers: impl Iterator<Item = &'a Descriptor>) -> Option<Self> {
        let first = layers.next()?;
        let is_ollama = |layer: &Descriptor| layer.media_type.starts_with(OLLAMA);
        (is_ollama(first) && layers.all(is_ollama)).then_some(Self::Ollama)
    }

    /// What a layer is.
    pub(super) fn form(self, layer: &Descriptor) -> LayerForm {
        let media_type = layer.media_type.as_str();
        if media_type == EMPTY {
            return LayerForm::Nothing;
        }
        let packed = match self {
            Self::ModelPack | Self::KitOps | Self::Docker => archive(media_type),
            Self::Other if is_packed_directory(layer) => {
                Some(archive(media_type).unwrap_or(LayerCompression::None))
            }
            // A chart is a `.tgz` that its readers want whole.
            Self::Other | Self::Helm | Self::Wasm | Self::Ollama => None,
        };
        packed.map_or(LayerForm::File, LayerForm::Archive)
    }
}

/// Whether `oras` has packed the layer from a directory. Only it says so; its media type may say so of a plain file.
fn is_packed_directory(layer: &Descriptor) -> bool {
    layer.annotations.get("io.deis.oras.content.unpack").is_some_and(|value| value == "true")
}

/// The compression of a media type that ends as archives' do.
fn archive(media_type: &str) -> Option<LayerCompression> {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| media_type.ends_with(suffix));
    if ends(&[".tar", "/tar", "+tar"]) {
        Some(LayerCompression::None)
    } else if ends(&["tar+gzip", "tar.gzip"]) {
        Some(LayerCompression::Gzip)
    } else if ends(&["tar+zstd", "tar.zstd"]) {
        Some(LayerCompression::Zstd)
    } else {
        None
    }
}

impl std::fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ModelPack => "ModelPack artifact",
            Self::KitOps => "KitOps ModelKit",
            Self::Docker => "Docker model",
            Self::Ollama => "Ollama model",
            Self::Helm => "Helm chart",
            Self::Wasm => "Wasm artifact",
            Self::Other => "artifact",
        })
    }
}
