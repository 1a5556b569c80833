//! Why an artifact cannot be shown as a tree.

use crate::kind::Kind;
use crate::oci::manifest::ArtifactKind;

/// Why an artifact cannot be shown as a tree. Layers are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// Nothing in it is a file.
    #[error("this {kind} holds no file, and an empty volume would say nothing; push it with its files")]
    Empty {
        /// What it is.
        kind: ArtifactKind,
    },
    /// Nobody says how a file is called.
    #[error(
        "layer {layer} of this {kind} ({media_type}) has no name; push it with an annotation org.opencontainers.image.title or org.cncf.model.filepath"
    )]
    NoName {
        /// Which layer.
        layer: usize,
        /// Its media type.
        media_type: String,
        /// What the artifact is.
        kind: ArtifactKind,
    },
    /// A name that cannot lie in a tree.
    #[error("the {annotation} {name:?} of layer {layer} {why}; push the artifact from the directory itself")]
    Name {
        /// Which layer.
        layer: usize,
        /// What states the name.
        annotation: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An annotation that says something, but not in its form.
    #[error("the annotation {annotation} of layer {layer} is malformed: {why}; push the artifact again")]
    Annotation {
        /// Which layer.
        layer: usize,
        /// Which annotation.
        annotation: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A config that does not say what is needed of it.
    #[error("the config of this {kind} cannot be used: {why}; push it again")]
    Config {
        /// What the artifact is.
        kind: ArtifactKind,
        /// What is wrong with it.
        why: String,
    },
    /// A ModelKit whose model is that of another one.
    #[error(
        "this ModelKit takes its model from another one, {reference}, which is not fetched with it; pack the model itself, or mount both"
    )]
    OtherKit {
        /// The other ModelKit.
        reference: String,
    },
}

impl ArtifactError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::OtherKit { .. } => Kind::Unsupported,
            Self::Empty { .. }
            | Self::NoName { .. }
            | Self::Name { .. }
            | Self::Annotation { .. }
            | Self::Config { .. } => Kind::Invalid,
        }
    }
}
