//! Pulling: manifest, layers, image; once per digest, whoever asks and however often.

use async_trait::async_trait;

use crate::image::store::ImageRecord;

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Resolve the reference at every request; content already here is not fetched again.
    Always,
    /// Ask only if the node does not know the reference yet.
    #[default]
    IfNotPresent,
    /// Never ask; the image must be here.
    Never,
}

/// Somebody who can make an image be here. The seam between volumes and pulling.
#[async_trait]
pub trait Images: Send + Sync + std::fmt::Debug {
    /// Waits until the image is in the store. Dropping the future does not stop the pull.
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError>;
}

/// An image to be made available.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Whether to ask the registry.
    pub policy: PullPolicy,
}

/// An image in the store, kept from the sweep while this value lives.
#[derive(Debug)]
pub struct Ready {
    /// Its record.
    pub record: ImageRecord,
}

/// Why an image could not be made available.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Policy `Never` and the image is not here.
    #[error("image {0} is not on this node and pullPolicy is Never; pull it first or change the policy")]
    Absent(String),
}

impl PullError {
    /// What sort of failure this is.
    pub fn kind(&self) -> crate::kind::Kind {
        crate::kind::Kind::NotFound
    }
}
