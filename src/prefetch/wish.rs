//! What an ImagePrefetch asks for. The API server has checked it by the CRD's schema; what that cannot say is bounded here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::PrefetchStatus;
use crate::oci::choice::{Choice, ChoiceError};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;

/// Images of one prefetch.
pub const IMAGES_MAX: usize = 16;
const BACKOFF_LIMIT: u32 = 6;

/// `spec` of an ImagePrefetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefetchSpec {
    /// The images, each once.
    pub images: Vec<Wish>,
    /// Labels that a node must have; all nodes if there are none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Secrets of the namespace to show registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<SecretName>,
    /// How many nodes work at the same time.
    #[serde(default)]
    pub parallelism: Parallelism,
    /// Whether nothing new is begun.
    #[serde(default)]
    pub paused: bool,
    /// How often a node tries again.
    #[serde(default = "backoff_limit")]
    pub backoff_limit: u32,
    /// How long the images stay.
    #[serde(default)]
    pub keep: Keep,
    /// Seconds that one node may take for one image, waiting between attempts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u64>,
    /// Seconds after which a complete prefetch is deleted, and with it what keeps its images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u64>,
}

/// One image, or some files of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// A reference as volumes have it.
    pub reference: String,
    /// Patterns of what is wanted, as volumes have them; everything if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns of what is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl Wish {
    /// One for all of an image.
    #[cfg(test)]
    pub(crate) fn whole(reference: &str) -> Self {
        Self { reference: reference.to_owned(), include: Vec::new(), exclude: Vec::new() }
    }

    /// Which files are wanted. The API server does not check patterns, so that it is parsed here and not with the object: one
    /// that is malformed is that wish's failure.
    ///
    /// # Errors
    /// Those of [`Choice::new`].
    pub fn choice(&self) -> Result<Choice, ChoiceError> {
        Choice::new(&self.include, &self.exclude)
    }

    /// By what a node's records tell the wishes of a prefetch apart: reference and choice. `None` if the choice is none, so that
    /// nothing can be kept for it.
    pub fn key(&self) -> Option<Digest> {
        Some(self.choice().ok()?.key(&Digest::of(self.reference.as_bytes())))
    }
}

/// The name of a Secret of the prefetch's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretName {
    /// Its name.
    pub name: String,
}

/// How long prefetched images stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Keep {
    /// They are pinned as long as the prefetch exists.
    #[default]
    WhileExists,
    /// They are as other images that were used once.
    Cache,
}

/// How many nodes work at the same time: a number, or a part of those that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parallelism {
    /// So many.
    Count(u32),
    /// `N%`, rounded up.
    Percent(String),
}

impl Default for Parallelism {
    fn default() -> Self {
        Self::Percent("10%".to_owned())
    }
}

impl Parallelism {
    /// The number of nodes of `wanted`; at least one.
    pub fn of(&self, wanted: usize) -> usize {
        let nodes = match self {
            Self::Count(count) => *count as usize,
            Self::Percent(text) => {
                let number = text.trim_end_matches('%').parse::<usize>().unwrap_or(0).min(100);
                if text.ends_with('%') { (wanted * number).div_ceil(100) } else { number }
            }
        };
        nodes.max(1)
    }
}

/// An ImagePrefetch as controller and nodes know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefetch {
    /// Its unique id: another of the same name is another.
    pub uid: String,
    /// Its namespace, whose Secrets and policy count.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which state of the spec this is.
    pub generation: i64,
    /// Which state of the object this is.
    pub version: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What is wished.
    pub spec: PrefetchSpec,
    /// What the controller says.
    pub status: PrefetchStatus,
}

impl Prefetch {
    /// Whether nodes with these labels are wanted.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The images, as many as there may be.
    pub fn wishes(&self) -> impl Iterator<Item = &Wish> {
        self.spec.images.iter().take(IMAGES_MAX)
    }

    /// The digest that all nodes pull for a wish: its own, or the one that the first node has found.
    pub fn target(&self, wish: &Wish) -> Option<Digest> {
        let own = wish.reference.parse::<Reference>().ok().and_then(|reference| reference.digest());
        own.or_else(|| self.status.digest_of(&wish.reference))
    }
}

fn backoff_limit() -> u32 {
    BACKOFF_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_has_its_default() {
        let spec: PrefetchSpec =
            serde_json::from_str(r#"{"images":[{"reference":"r.io/a:1","include":["*.x"]}]}"#).unwrap();
        assert_eq!((spec.backoff_limit, spec.keep, spec.paused), (6, Keep::WhileExists, false));
        assert_eq!(spec.parallelism.of(25), 3);
        assert_eq!(spec.active_deadline_seconds, None);
    }

    #[test]
    fn another_choice_is_another_wish() {
        let wish = |text: &str| serde_json::from_str::<Wish>(text).unwrap();
        let key = |text: &str| wish(text).key().unwrap();
        let whole = key(r#"{"reference":"r.io/a:1"}"#);
        assert_eq!(whole, Digest::of(b"r.io/a:1"), "as releases before choices wrote it");
        let chosen = key(r#"{"reference":"r.io/a:1","include":["a","b"]}"#);
        assert_eq!(chosen, key(r#"{"reference":"r.io/a:1","include":["b","./a/"],"exclude":[]}"#));
        let others = [
            r#"{"reference":"r.io/a:1","include":["a"]}"#,
            r#"{"reference":"r.io/a:1","exclude":["a","b"]}"#,
            r#"{"reference":"r.io/b:1","include":["a","b"]}"#,
        ];
        assert!(others.iter().all(|other| ![whole, chosen].contains(&key(other))));
        assert_eq!(wish(r#"{"reference":"r.io/a:1","include":["["]}"#).key(), None);
    }

    #[test]
    fn somebody_always_works() {
        for (text, wanted, nodes) in [
            ("5", 100, 5),
            ("0", 100, 1),
            (r#""10%""#, 5000, 500),
            (r#""10%""#, 0, 1),
            (r#""1%""#, 50, 1),
            (r#""300%""#, 7, 7),
            (r#""4""#, 7, 4),
            (r#""some""#, 7, 1),
        ] {
            let parallelism: Parallelism = serde_json::from_str(text).unwrap();
            assert_eq!(parallelism.of(wanted), nodes, "{text}");
        }
    }
}
