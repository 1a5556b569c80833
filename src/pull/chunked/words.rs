//! What is known of a layer at its beginning, and how an attempt ends.

use std::sync::Arc;

use crate::image::chunked::{Positions, Toc};
use crate::oci::BlobStream;
use crate::oci::digest::Digest;
use crate::pull::error::PullError;
use crate::pull::metrics::PartialOutcome;

/// What became of fetching a layer in parts.
pub(in crate::pull) enum Parted {
    /// It is in the store, with this DiffID, which is the claimed one.
    Stored(Digest),
    /// It is to be fetched whole.
    Whole(Given),
}

/// What a layer that is fetched whole begins with.
#[derive(Default)]
pub(in crate::pull) struct Given {
    /// All of its bytes, on an answer that has come already.
    pub stream: Option<BlobStream>,
    pub tables: Tables,
}

/// What is known of a layer's table of contents.
#[derive(Default)]
pub(in crate::pull) enum Tables {
    /// It has none, or one that is no good.
    #[default]
    None,
    /// Where it is.
    At(Positions),
    /// The table.
    Read(Arc<Toc>),
}

/// Why an attempt ends before the layer is here.
pub(in crate::pull) enum Stop {
    /// The layer is fetched whole.
    Whole { outcome: PartialOutcome, why: String, stream: Option<BlobStream> },
    /// The pull fails.
    Pull(PullError),
}

impl From<PullError> for Stop {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

impl Stop {
    pub(super) fn whole(outcome: PartialOutcome, why: impl ToString) -> Self {
        Self::Whole { outcome, why: why.to_string(), stream: None }
    }
}
