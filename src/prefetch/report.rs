//! What a node says of its work: `status` of its NodeImageCache. It is read by whoever may read that kind, in all
//! namespaces, so an entry has no more than the prefetch's author may know, and no secret.

use serde::{Deserialize, Serialize};

/// Entries of one report; of more, the youngest prefetches' are left out.
pub const ENTRIES_MAX: usize = 256;
/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 256;

/// `status` of a NodeImageCache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    /// One for each image that the node has begun with.
    pub entries: Vec<Entry>,
    /// Bytes that are left on the store's filesystem.
    pub free_bytes: u64,
    /// When it was written, by RFC 3339.
    pub observed: String,
}

/// One image of one prefetch on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The prefetch.
    pub uid: String,
    /// The image, as it was wished.
    pub image: String,
    /// The generation of the prefetch that this is about.
    pub generation: i64,
    /// What the reference was resolved to, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How far it is.
    pub state: State,
    /// Why it has failed, or waits for the next attempt: a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes of the layers that are here, as far as the prefetch's own credentials may know.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes of all its layers; zero before that is known.
    #[serde(default)]
    pub bytes_total: u64,
    /// When it was ready or given up, by RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
}

/// How far a node is with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum State {
    /// Not begun, or between two attempts.
    #[default]
    Waiting,
    /// Being pulled.
    Pulling,
    /// On the node.
    Ready,
    /// Given up until the prefetch is changed.
    Failed,
}

/// A message as far as it fits into an entry.
pub fn cut(text: &str) -> String {
    if text.len() <= MESSAGE_MAX {
        return text.to_owned();
    }
    const GAP: &str = " ...";
    format!("{}{GAP}", &text[..text.floor_char_boundary(MESSAGE_MAX - GAP.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_fit() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"ä".repeat(400));
        assert!(long.len() <= MESSAGE_MAX && long.ends_with("ä ..."), "{long}");
    }
}
