//! Pulling: manifest, parts, image; once per digest, however many callers ask.
//!
//! [`plan`] decides what a request needs next, and [`execute`] does it with the caller's own credentials. [`rights`]
//! says who may have what is here, and [`admission`] consults the policy. The fetching itself is a task that outlives
//! its callers ([`single_flight`], [`pull_task`]): a [`recipe`] says of which parts the image is made, they are fetched
//! in parallel ([`layers`]), and the image is built from their records ([`build`]) and committed with one sync.
//! Nothing that a config or an index *claims* becomes a key of the store: layers are keyed by the DiffID computed here.

use async_trait::async_trait;

use crate::image::store::{Hold, ImageRecord};
use crate::image::verity::VerityDigest;
use crate::oci::Credentials;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;
use crate::oci::reference::Reference;
use crate::trust::Admission;

mod admission;
mod attendance;
mod blocking;
mod build;
mod builders;
mod busy;
mod chunked;
mod combine;
mod error;
mod evidence;
mod excess;
mod execute;
mod extra;
mod gauges;
mod layer_stream;
mod layers;
mod lazy;
mod limits;
mod make_file;
mod manifest_path;
mod metrics;
mod outline;
mod partial;
mod plan;
mod progress;
mod pull_task;
mod puller;
mod pulls;
mod rate;
mod recipe;
mod renew;
mod rights;
mod single_flight;
mod stored_evidence;
mod turns;
mod unbuilt;
mod under_way;
mod urgency;
mod vary;

pub use attendance::Waiter;
use blocking::{background, blocking};
pub use build::{fold, write};
pub use busy::{Busy, Occupied};
pub use chunked::settings::{PartialPulls, PlanRules, ReuseFrom};
pub use combine::{Combination, tree_of};
pub use error::PullError;
pub use excess::Excess;
pub use gauges::PullGauges;
pub use lazy::{
    Covered, LazyImage, LazyOffer, Offers, Places, artifact_subject, by_seal, by_signature, fetch_map,
    is_about, offers, places,
};
pub use limits::{Kept, PullLimits};
pub use manifest_path::ManifestPath;
pub use metrics::PullMetrics;
pub use outline::{Outline, OutlinedPart, outline};
pub use partial::RangeRules;
pub use progress::{LayerProgress, LayerState, Phase, Progress, Watch};
pub use puller::Puller;
pub use rate::Pace;
pub use recipe::StoredPart;
pub use turns::TurnRules;
pub use unbuilt::Unbuilt;
pub use under_way::{LayerUnderWay, PullUnderWay};

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

/// Makes images available. The seam between volumes and pulling.
#[async_trait]
pub trait Images: Send + Sync + std::fmt::Debug {
    /// Waits until the image is in the store. Dropping the future does not stop a pull that has
    /// begun; the next request joins it.
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError>;

    /// Waits until images that are in the store, and that the caller keeps, are one in the store. `first` is what the first
    /// of them was asked for by: in its turn this is done. Dropping the future does not stop a build that has begun.
    async fn combine(&self, first: &ImageRequest, wanted: Combination) -> Result<Ready, PullError>;

    /// Notes that an image, by its [`ImageRecord::key`], is in use, or was until now: when room is short, the least recently
    /// used images are removed first. Blocking, but short.
    fn used(&self, image: &Digest);
}

/// An image to be made available.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Which image.
    pub reference: Reference,
    /// What of it is wanted.
    pub choice: Choice,
    /// Whether to ask the registry.
    pub policy: PullPolicy,
    /// Which manifest of an index.
    pub platform: Platform,
    /// Who asks, and what for.
    pub caller: Caller,
    /// The manifest that the volume shows already, if it does. No other image is given.
    pub pinned: Option<Digest>,
    /// Whether nothing in the image may be executed.
    pub noexec: bool,
    /// What to show the registry.
    pub credentials: Credentials,
    /// Where the caller finds the counters of the pull that the request has joined.
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
    /// The kubelet, before the pod that will mount it exists.
    Staging,
    /// A namespace, for pods of it that may come. All others go first, and it must not fill the disk.
    Prefetch {
        /// Its Kubernetes namespace.
        namespace: String,
        /// The percentage of the store's filesystem that may be in use when the image has come.
        up_to: u8,
    },
    /// The operator, for all pods of the node.
    Preload,
    /// The operator, to mount it.
    Mount,
    /// The operator, to look at it.
    Operator,
}

impl Caller {
    /// Whether the caller commands the node.
    pub(super) fn is_operator(&self) -> bool {
        matches!(self, Self::Preload | Self::Mount | Self::Operator)
    }

    /// Whether the policy decides about the caller. A staged volume shows nothing yet, and its pod is not known. An
    /// image that the operator only looks at is not mounted.
    pub(super) fn is_judged(&self) -> bool {
        !matches!(self, Self::Staging | Self::Operator)
    }

    /// Whether nothing is fetched for the caller that no policy could admit: it is for pods, or to be mounted.
    pub(super) fn heeds_policy(&self) -> bool {
        !matches!(self, Self::Operator)
    }

    /// Whether the caller mounts the image, now or soon.
    pub(super) fn mounts(&self) -> bool {
        matches!(self, Self::Pod { .. } | Self::Staging | Self::Prefetch { .. } | Self::Mount)
    }

    /// Whether nobody waits for the image yet.
    pub(super) fn is_patient(&self) -> bool {
        matches!(self, Self::Prefetch { .. })
    }

    /// The namespace whose policy decides.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod { namespace } => namespace.as_deref(),
            Self::Prefetch { namespace, .. } => Some(namespace),
            _ => None,
        }
    }
}

/// An image in the store, kept from the sweep while this value lives.
#[derive(Debug)]
pub struct Ready {
    /// Its record.
    pub record: ImageRecord,
    /// The composefs image to mount: the record's own, or one of its variants.
    pub image: VerityDigest,
    /// Keeps the image until a volume record or a mount does.
    pub hold: Hold,
    /// Bytes that the pull fetched from the source for this image; 0 if it was here.
    pub fetched: u64,
    /// Why it may be mounted; `None` for callers that are not judged.
    pub admission: Option<Admission>,
}
