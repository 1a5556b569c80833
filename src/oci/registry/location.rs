//! Where a registry keeps its blobs, and whether it serves parts of them.
//!
//! Many registries redirect to a storage back end by a URL that is valid for some minutes. Parts that are asked for at
//! that URL cost one round trip less each, and do not count as requests to the registry. Once it is refused the registry
//! is asked again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::oci::digest::Digest;

/// More than an image of many layers fetches at a time. Beyond it all are dropped and asked for again.
const LOCATIONS_MAX: usize = 64;

/// Where the blobs of one source were found. A URL may carry a signature: it never leaves the source, whose credential
/// it was given to, and stands in no message.
#[derive(Default)]
pub(super) struct Locations(Mutex<HashMap<Digest, Url>>);

impl std::fmt::Debug for Locations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locations")
    }
}

impl Locations {
    pub(super) fn get(&self, blob: &Digest) -> Option<Url> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(blob).cloned()
    }

    pub(super) fn keep(&self, blob: &Digest, url: &Url) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= LOCATIONS_MAX {
            found.clear();
        }
        found.insert(*blob, url.clone());
    }

    pub(super) fn forget(&self, blob: &Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(blob);
    }
}

/// How long a host that refused a range is asked for none: it may be replaced by one that serves them.
const REFUSAL: Duration = Duration::from_secs(3600);
/// Beyond it all are forgotten. Each costs one refused request.
const REFUSALS_MAX: usize = 256;

/// The hosts that refused ranges. One that ignores them is not among them: its answer is the whole blob, so asking costs
/// nothing, and a cache that has no copy yet ignores ranges only until it has.
#[derive(Debug, Default)]
pub(super) struct RangeHosts(Mutex<HashMap<String, Instant>>);

impl RangeHosts {
    pub(super) fn may_be_asked(&self, host: &str) -> bool {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(host).is_none_or(|at| at.elapsed() >= REFUSAL)
    }

    pub(super) fn refused(&self, host: &str) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REFUSALS_MAX {
            refused.clear();
        }
        refused.insert(host.to_owned(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let (locations, hosts) = (Locations::default(), RangeHosts::default());
        let url = Url::parse("https://storage.example/x?signature=1").unwrap();
        for i in 0..1000_u32 {
            locations.keep(&Digest::of(&i.to_le_bytes()), &url);
            hosts.refused(&i.to_string());
        }
        assert!(locations.0.lock().unwrap().len() <= LOCATIONS_MAX);
        assert!(hosts.0.lock().unwrap().len() <= REFUSALS_MAX);
        let last = Digest::of(&999_u32.to_le_bytes());
        assert_eq!(locations.get(&last), Some(url));
        locations.forget(&last);
        assert_eq!(locations.get(&last), None);
        assert!(!hosts.may_be_asked("999") && hosts.may_be_asked("r.io"));
        assert!(!format!("{locations:?}").contains("signature"));
    }
}
