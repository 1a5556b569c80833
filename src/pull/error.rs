//! What can go wrong on the way from a reference to an image in the store.

use std::sync::Arc;

use super::excess::Excess;
use super::recipe::NoRecipe;
use crate::image::composefs::ImageError;
use crate::image::layer::LayerError;
use crate::image::lazy::LazyError;
use crate::image::objects::ObjectError;
use crate::image::seal::{Seal, SealError};
use crate::image::store::StoreError;
use crate::image::tree::{Rules, TreeError};
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::artifact::ArtifactError;
use crate::oci::choice::ChoiceError;
use crate::oci::digest::Digest;
use crate::oci::limits::Exceeded;
use crate::oci::manifest::ManifestError;
use crate::oci::platform::PlatformError;
use crate::trust::PolicyRefusal;

/// A layer that is not what the config promises.
#[derive(Debug, Clone, thiserror::Error)]
#[error("layer {blob} holds {found} but the image's config claims {claimed}")]
pub struct WrongDiffId {
    /// The layer's blob.
    pub blob: Digest,
    /// The DiffID computed here.
    pub found: Digest,
    /// The DiffID that the config lists for this layer.
    pub claimed: Digest,
}

/// Why an image could not be made available. Cheap to clone: every caller that waited for the same pull gets the same
/// error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PullError {
    /// Policy `Never` and the image is not here.
    #[error("image {0} is not on this node and pullPolicy is Never; pull it first or change the policy")]
    Absent(String),
    /// It is here and damaged, and could not be fetched again.
    #[error(
        "{image} is in quarantine on this node: object {object} of it {damage}, and it could not be fetched again: {source}; \
         put that right, or run `composefs-csi store repair` on the node with credentials that may read the image"
    )]
    Quarantined {
        /// The reference asked for.
        image: String,
        /// A damaged object.
        object: VerityDigest,
        /// What is wrong with it.
        damage: String,
        /// Why the image could not be fetched.
        source: Box<PullError>,
    },
    /// What was fetched again is damaged again.
    #[error(
        "{image} was fetched again, but object {object} of it still {damage}: the disk under the store does not keep what \
         is written to it, or another release built the image; check the disk, and delete the pods that use the image"
    )]
    StillDamaged {
        /// The reference asked for.
        image: String,
        /// A damaged object.
        object: VerityDigest,
        /// What is wrong with it.
        damage: String,
    },
    /// The policy does not admit it.
    #[error(transparent)]
    Refused(PolicyRefusal),
    /// The source gave no bytes, or refused.
    #[error("{image}: {source}")]
    Source {
        /// The reference asked for.
        image: String,
        /// What the source said.
        source: Arc<SourceError>,
    },
    /// A manifest, index or config that cannot be used.
    #[error("{image}: {source}")]
    Manifest {
        /// The reference asked for.
        image: String,
        /// What is wrong with it.
        source: Arc<ManifestError>,
    },
    /// An artifact that cannot be shown as a tree.
    #[error("{image}: {source}")]
    Artifact {
        /// The reference asked for.
        image: String,
        /// What is wrong with it.
        source: Arc<ArtifactError>,
    },
    /// What is wanted of it cannot be had.
    #[error("{image}: {source}")]
    Choice {
        /// The reference asked for.
        image: String,
        /// What is wrong with the patterns.
        source: Arc<ChoiceError>,
    },
    /// A layer whose bytes are not right.
    #[error("{image}: {source}")]
    Layer {
        /// The reference asked for.
        image: String,
        /// What is wrong with it.
        source: Arc<LayerError>,
    },
    /// The config promises another layer than the one the manifest names.
    #[error(
        "{image}: layer {blob} holds {found} but the image's config claims {claimed}; \
         the image is broken or forged, rebuild and push it again"
    )]
    DiffId {
        /// The reference asked for.
        image: String,
        /// The layer's blob.
        blob: Digest,
        /// The DiffID computed here.
        found: Digest,
        /// The DiffID that the config lists for this layer.
        claimed: Digest,
    },
    /// The same of a layer that is compressed as zstd:chunked.
    #[error(
        "{image}: {layer}; it is compressed as zstd:chunked, and \
         skopeo and podman of before 2024 (skopeo 1.9 of Debian 12 among them) wrote such layers without the end of the \
         archive: push the image again with a newer one, or without zstd:chunked; if it is none of theirs, it is broken or \
         forged"
    )]
    ChunkedDiffId {
        /// The reference asked for.
        image: String,
        /// As of [`PullError::DiffId`]; boxed, so that errors stay small.
        layer: Box<WrongDiffId>,
    },
    /// An index that lists an index that lists an index…
    #[error(
        "{0}: its indexes are nested too deeply, or say of too many entries not for which platform they are; name the \
         manifest's digest instead"
    )]
    Nested(String),
    /// The image as a whole is more than this node takes.
    #[error("{image}: {exceeded}")]
    Limit {
        /// The reference asked for.
        image: String,
        /// Which cap.
        exceeded: Exceeded,
    },
    /// No manifest of the index suits the platform.
    #[error("{image}: {source}")]
    Platform {
        /// The reference asked for.
        image: String,
        /// What the index has.
        source: Arc<PlatformError>,
    },
    /// The manifest's seal is malformed.
    #[error("{image}: {source}")]
    Seal {
        /// The reference asked for.
        image: String,
        /// What is wrong with it.
        source: Arc<SealError>,
    },
    /// The layers make another image than the manifest's composefs digest says.
    #[error(
        "{image}: the manifest is sealed with composefs digest {} (annotation {}), but its layers make {}; it was sealed as \
         another image, or changed since: do not use it, ask its publisher to seal it again",
        seal.digest, seal.annotation, list(built)
    )]
    NotAsSealed {
        /// The reference asked for.
        image: String,
        /// What the manifest says.
        seal: Seal,
        /// What was built here, and how.
        built: Vec<(Rules, VerityDigest)>,
    },
    /// The image was mounted before its content was here, and its layers make another.
    #[error(
        "{image}: it was mounted lazily as composefs image {mounted}, which a signature covers, but its layers make {}; what \
         was read is as signed, but nobody vouches for the layers: do not use it, ask its publisher to publish the artifact \
         again",
        list(built)
    )]
    NotAsMounted {
        /// The reference asked for.
        image: String,
        /// What was mounted.
        mounted: VerityDigest,
        /// What was built here, and how.
        built: Vec<(Rules, VerityDigest)>,
    },
    /// Only sealed images are allowed, and this one is not.
    #[error(
        "{image}: this node admits only images whose manifest carries their composefs digest \
         (--require-composefs-digest), and {why}; seal it with `composefs-csi seal` and sign it again"
    )]
    Unsealed {
        /// The reference asked for.
        image: String,
        /// What is missing.
        why: String,
    },
    /// A sealed image has something that is not allowed.
    #[error("{image}: {source}")]
    Excess {
        /// The reference asked for.
        image: String,
        /// What it has.
        source: Excess,
    },
    /// The layers do not make a tree.
    #[error("{image}: {source}")]
    Tree {
        /// The reference asked for.
        image: String,
        /// What is wrong with them.
        source: Arc<TreeError>,
    },
    /// The tree does not make an image.
    #[error("{image}: {source}")]
    Image {
        /// The reference asked for.
        image: String,
        /// What is wrong with it.
        source: Arc<ImageError>,
    },
    /// The store failed.
    #[error("{image}: {source}")]
    Store {
        /// The reference asked for.
        image: String,
        /// What the store said.
        source: Arc<StoreError>,
    },
    /// An object could not be stored.
    #[error("{image}: {source}")]
    Object {
        /// The reference asked for.
        image: String,
        /// What the store said.
        source: Arc<ObjectError>,
    },
    /// What is published for it to start lazily cannot be used.
    #[error("{image}: it cannot start lazily by artifact {artifact}: {source}")]
    Lazy {
        /// The reference asked for.
        image: String,
        /// The artifact's digest; that of the image's manifest, if none of several will do.
        artifact: Digest,
        /// What is wrong with it.
        source: Arc<LazyError>,
    },
    /// What lies where an artifact says that an object is, is not the object.
    #[error(
        "{image}: object {object} is not where the artifact's offset map says ({why}); it comes with its layer, but publish \
         the artifact again (`composefs-csi seal --lazy`)"
    )]
    NotThere {
        /// The reference asked for.
        image: String,
        /// The object.
        object: VerityDigest,
        /// What is there.
        why: String,
    },
    /// It is to be mounted before its content is here, and there is no room for that.
    #[error(
        "{image}: it cannot be mounted lazily: {mib} MiB of content are to come, and the store's filesystem has no room for \
         them beside what pulls leave free; remove images (`composefs-csi prune`), or give the store more space"
    )]
    NoRoomForLazy {
        /// The reference asked for.
        image: String,
        /// MiB of its objects.
        mib: u64,
    },
    /// Prefetched, it would leave too little room to others.
    #[error(
        "{image}: it has {mib} MiB to fetch, and with them more than {up_to} % of the store's filesystem would be in use; a \
         prefetch removes no other image: make room, or a smaller wish"
    )]
    WouldFill {
        /// The reference asked for.
        image: String,
        /// MiB of its layers, as its manifest says.
        mib: u64,
        /// The percentage up to which prefetches may fill it.
        up_to: u8,
    },
    /// The layers do not fit, whatever is removed.
    #[error(
        "{image}: its layers that are not here take {least} MiB of the disk at least, and {spare} MiB of the store's filesystem \
         are to spare, so none is fetched: remove images with `composefs-csi prune` or unpin some, give the store more space, \
         lower --min-free, or have it tried all the same with --min-unpacked=0"
    )]
    NoRoom {
        /// The reference asked for.
        image: String,
        /// MiB that they take for certain.
        least: u64,
        /// MiB that pulls may still write.
        spare: u64,
    },
    /// A layer was the slowest of those that made room for others, and there was no room for it any more.
    #[error(
        "{image}: layer {blob} made room for other pulls: its registry sent {rate} bytes a second, and too many are that \
         slow; it is tried again with the next request, look at network and registry"
    )]
    GaveWay {
        /// The reference asked for.
        image: String,
        /// The layer's blob.
        blob: Digest,
        /// Bytes per second.
        rate: u64,
    },
    /// The operator ended the pull.
    #[error(
        "{0}: the pull was ended by `composefs-csi pulls cancel`; whoever asks again starts it anew, with the layers that \
         are complete: delete the pods that want the image first"
    )]
    Cancelled(String),
    /// The task that did the work ended without a result.
    #[error("{image}: the pull ended unexpectedly ({why}); this is a defect, the log has more")]
    Lost {
        /// The reference asked for.
        image: String,
        /// What the runtime said.
        why: String,
    },
}

impl PullError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Absent(_) => Kind::NotFound,
            Self::Quarantined { source, .. } => source.kind(),
            Self::StillDamaged { .. } => Kind::Corrupt,
            Self::Refused(_) => Kind::Unsupported,
            Self::Source { source, .. } => source.kind(),
            Self::Manifest { source, .. } => source.kind(),
            Self::Artifact { source, .. } => source.kind(),
            Self::Choice { source, .. } => source.kind(),
            Self::Layer { source, .. } => source.kind(),
            Self::DiffId { .. } | Self::ChunkedDiffId { .. } | Self::NotAsSealed { .. } => Kind::Corrupt,
            Self::Seal { source, .. } => source.kind(),
            Self::Unsealed { .. } => Kind::Denied,
            Self::Excess { source, .. } => source.kind(),
            Self::Nested(_) => Kind::Invalid,
            Self::Limit { .. }
            | Self::WouldFill { .. }
            | Self::NoRoom { .. }
            | Self::NoRoomForLazy { .. } => Kind::Exhausted,
            Self::Platform { source, .. } => source.kind(),
            Self::Tree { source, .. } => source.kind(),
            Self::Image { source, .. } => source.kind(),
            Self::Store { source, .. } => source.kind(),
            Self::Object { source, .. } => source.kind(),
            Self::Lazy { source, .. } => source.kind(),
            Self::GaveWay { .. } | Self::Cancelled(_) => Kind::Transient,
            Self::NotThere { .. } | Self::NotAsMounted { .. } => Kind::Corrupt,
            Self::Lost { .. } => Kind::Bug,
        }
    }
}

impl PullError {
    /// Whether other bytes came than those that were asked for.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Source { source, .. } => source.is_damage(),
            Self::Layer { source, .. } => source.fault.is_damage(),
            _ => false,
        }
    }

    /// Whether more of the layers is needed than what a choice takes by its names.
    pub(super) fn wants_whole_layers(&self) -> bool {
        matches!(self, Self::Tree { source, .. } if matches!(**source, TreeError::LeftOut { .. }))
    }

    /// Whether a source refused or hid what was asked for. That concerns one credential only.
    pub(super) fn is_refused_by_source(&self) -> bool {
        matches!(self, Self::Source { source, .. } if matches!(source.kind(), Kind::Denied | Kind::NotFound))
    }
}

/// `aa… by the canonical rules, bb… by the canonical-user-xattrs rules`.
fn list(built: &[(Rules, VerityDigest)]) -> String {
    let each = built.iter().map(|(rules, digest)| format!("{digest} by the {rules} rules"));
    each.collect::<Vec<_>>().join(", ")
}

/// Ties errors of the parts to the image they concern.
pub(super) trait About<T> {
    /// Names the image in the error.
    fn about(self, image: &str) -> Result<T, PullError>;
}

macro_rules! about {
    ($($error:ty => $variant:ident),+ $(,)?) => {$(
        impl<T> About<T> for Result<T, $error> {
            fn about(self, image: &str) -> Result<T, PullError> {
                self.map_err(|source| PullError::$variant { image: image.to_owned(), source: Arc::new(source) })
            }
        }
    )+};
}

about!(
    SourceError => Source, ManifestError => Manifest, ArtifactError => Artifact, ChoiceError => Choice, PlatformError => Platform, LayerError => Layer, TreeError => Tree, ImageError => Image, StoreError => Store,
    ObjectError => Object, SealError => Seal,
);

impl<T> About<T> for Result<T, NoRecipe> {
    fn about(self, image: &str) -> Result<T, PullError> {
        match self {
            Ok(recipe) => Ok(recipe),
            Err(NoRecipe::Manifest(error)) => Err(error).about(image),
            Err(NoRecipe::Artifact(error)) => Err(error).about(image),
        }
    }
}
