//! What the controller writes into an ImagePrefetch.

use serde::{Deserialize, Serialize};

use crate::oci::digest::Digest;

/// Failures that a status lists.
pub const FAILURES_MAX: usize = 20;

/// `status` of an ImagePrefetch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrefetchStatus {
    /// The generation that it is about; nodes begin nothing of another one.
    pub observed_generation: i64,
    /// What the wishes were resolved to.
    pub images: Vec<ResolvedImage>,
    /// Nodes whose place is below this begin.
    pub admitted: u16,
    /// The nodes by what they do.
    pub nodes: NodeCounts,
    /// Some of what has failed.
    pub failures: Vec<Failure>,
    /// `Resolved`, `Complete` and `Degraded`.
    pub conditions: Vec<Condition>,
}

/// A wish and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The reference as it was wished.
    pub reference: String,
    /// The digest of its manifest or index.
    pub digest: String,
    /// Bytes of its layers on the node that resolved it, as its manifest says.
    #[serde(default)]
    pub bytes: u64,
}

/// How many nodes do what. Each wanted node counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeCounts {
    /// That the selector selects.
    pub wanted: u32,
    /// That are not admitted yet, or have not begun.
    pub waiting: u32,
    /// That pull.
    pub pulling: u32,
    /// That have all images.
    pub ready: u32,
    /// That have given up.
    pub failed: u32,
    /// That say nothing: no plugin runs there, or none that prefetches.
    pub silent: u32,
}

/// Why a node has given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// The node.
    pub node: String,
    /// The image, as it was wished.
    pub reference: String,
    /// A word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A condition as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// A word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// The generation that it is about.
    pub observed_generation: i64,
    /// Since when it has its status, by RFC 3339.
    pub last_transition_time: String,
}

impl PrefetchStatus {
    /// What a reference was resolved to, if it was.
    pub fn digest_of(&self, reference: &str) -> Option<Digest> {
        self.images.iter().find(|image| image.reference == reference)?.digest.parse().ok()
    }

    /// A condition.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}
