//! Pulling: manifest, layers, image; once per digest, whoever asks and however often.
//!
//! [`Puller`] decides whether anything must be fetched at all, with the caller's own credentials
//! ([`locate`]); the fetching itself is a task that outlives its callers ([`single_flight`]): layers in
//! parallel ([`layers`]), then the image built from their records ([`build`]) and committed with
//! one sync. Who may have what is already here is [`rights`]'. Nothing that a config or an index *claims* becomes a key of the store: layers go by
//! the DiffID computed here.

use async_trait::async_trait;

use crate::image::store::{ImageRecord, Lease};
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;
use crate::oci::reference::Reference;
use crate::trust::Admission;

mod admission;
mod build;
mod error;
mod evidence;
mod layers;
mod locate;
mod manifest_path;
mod metrics;
mod progress;
mod puller;
mod renew;
mod rights;
mod single_flight;
mod unbuilt;

pub use build::{fold, write};
pub use error::PullError;
pub use manifest_path::ManifestPath;
pub use metrics::{PullMetrics, Shared};
pub use progress::{LayerProgress, LayerState, Progress, Watch};
pub use puller::{Limits, Puller};
pub use unbuilt::Unbuilt;

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
    /// Waits until the image is in the store. Dropping the future does not stop a pull that has
    /// begun; the next request joins it.
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError>;

    /// Notes that an image is, or until now was, in use: when room is short, the least recently used
    /// images go first. Blocking, but short.
    fn used(&self, manifest: &Digest);
}

/// An image to be made available.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Which image.
    pub reference: Reference,
    /// Whether to ask the registry.
    pub policy: PullPolicy,
    /// Which manifest of an index.
    pub platform: Platform,
    /// Who asks.
    pub caller: Caller,
    /// The manifest that the volume shows already, if it does: nothing else will do.
    pub pinned: Option<Digest>,
    /// What to show the registry.
    pub credentials: Credentials,
    /// Where the request finds the counters of the pull it has joined.
    pub watch: Watch,
}

/// Who asks for an image, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A pod, about to have it mounted.
    Pod {
        /// Its Kubernetes namespace, as far as the kubelet says.
        namespace: Option<String>,
    },
    /// The kubelet, that the image may be here when a pod comes.
    Staging,
    /// The operator, for all pods of the node.
    Preload,
    /// The operator, to mount it.
    Mount,
    /// The operator, to look at it.
    Operator,
}

impl Caller {
    /// Whether it is somebody who commands the node.
    pub fn is_operator(&self) -> bool {
        matches!(self, Self::Preload | Self::Mount | Self::Operator)
    }

    /// Whether the policy is asked. A volume that is staged shows nothing to anybody yet, and whose pod will come is
    /// not known; what is only looked at is not mounted.
    pub fn is_judged(&self) -> bool {
        !matches!(self, Self::Staging | Self::Operator)
    }

    /// The namespace whose policy is asked.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod { namespace } => namespace.as_deref(),
            _ => None,
        }
    }
}

/// An image in the store, kept from the sweep while this value lives.
#[derive(Debug)]
pub struct Ready {
    /// Its record.
    pub record: ImageRecord,
    /// Keeps the sweep away until the image is recorded elsewhere.
    pub lease: Lease,
    /// Bytes fetched from the source for this image by the pull that brought it; 0 if it was here.
    pub fetched: u64,
    /// By what it may be mounted; `None` for those who do not mount.
    pub admission: Option<Admission>,
}
