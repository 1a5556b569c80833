//! What the operator sees of the pulls under way. No credential is part of it.

use serde::{Deserialize, Serialize};

use super::attendance::{Attendance, Waiter};
use super::progress::{LayerProgress, LayerState, Phase, Progress};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;

/// A pull under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullUnderWay {
    /// The reference by which it was started.
    pub image: String,
    /// The platform's manifest.
    pub digest: Digest,
    /// Calls that wait for it.
    pub waiting: usize,
    /// For whom they wait, as far as they have said so; the longest waiting first.
    #[serde(default)]
    pub waiters: Vec<Waiter>,
    /// Its age in seconds.
    pub seconds: u64,
    /// Bytes of its layers that are here.
    pub done_bytes: u64,
    /// Bytes of all its layers.
    pub total_bytes: u64,
    /// Bytes of them that came over the wire, what came twice included.
    #[serde(default)]
    pub fetched_bytes: u64,
    /// Bytes that arrived lately in a second.
    pub bytes_per_second: u64,
    /// Seconds until all bytes are here, at that rate; absent until the rate is steady.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Seconds in which nothing has arrived, if they are ten or more and something is still to come.
    #[serde(default)]
    pub seconds_silent: Option<u64>,
    /// What it is doing.
    #[serde(default)]
    pub phase: Phase,
    /// Whether its layers are here, and the image is being built.
    pub building: bool,
    /// Its layers, lowest first.
    pub layers: Vec<LayerUnderWay>,
}

/// A layer of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerUnderWay {
    /// Its blob.
    pub blob: Digest,
    /// Where it stands.
    pub state: LayerState,
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes of them that are unpacked.
    #[serde(default)]
    pub unpacked_bytes: u64,
    /// Bytes of the blob.
    pub total_bytes: u64,
    /// Bytes that arrived lately in a second.
    pub bytes_per_second: u64,
}

impl PullUnderWay {
    /// What there is to see of a pull for which these calls wait.
    pub(super) fn of(progress: &Progress, attendance: &Attendance) -> Self {
        let pace = progress.pace();
        Self {
            image: progress.image.clone(),
            digest: progress.manifest,
            waiting: attendance.count(),
            waiters: attendance.waiters(),
            seconds: progress.started.elapsed().as_secs(),
            done_bytes: progress.done(),
            total_bytes: progress.total(),
            fetched_bytes: progress.fetched(),
            bytes_per_second: pace.rate.unwrap_or(0),
            seconds_left: pace.left.map(|left| left.as_secs_f64().ceil() as u64),
            seconds_silent: pace.silent.map(|silent| silent.as_secs()),
            phase: progress.phase(),
            building: progress.is_building(),
            layers: progress.layers.iter().map(LayerUnderWay::of).collect(),
        }
    }

    /// Whether `wanted` names it: by the manifest's digest, or by the image's reference.
    pub(super) fn is_named(&self, wanted: &str) -> bool {
        let by_digest = wanted.parse() == Ok(self.digest);
        // As the pull has it: `docker.io/library/busybox` is `docker.io/library/busybox:latest`.
        by_digest || wanted.parse::<Reference>().is_ok_and(|wanted| wanted.to_string() == self.image)
    }
}

impl LayerUnderWay {
    fn of(layer: &LayerProgress) -> Self {
        Self {
            blob: layer.blob,
            state: layer.state(),
            done_bytes: layer.done(),
            unpacked_bytes: layer.unpacked(),
            total_bytes: layer.size,
            bytes_per_second: layer.rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_named_by_digest_or_reference() {
        let digest = Digest::of(b"m");
        let attendance = Attendance::new();
        let waiter = Waiter { pod: "shop/web-0".to_owned(), volume: "csi-1".to_owned() };
        let _waiting = (attendance.attend(Some(&waiter)), attendance.attend(None));
        let progress = Progress::new("r.io/a/b:latest", digest, [(Digest::of(b"l"), 7)]);
        let pull = PullUnderWay::of(&progress, &attendance);
        assert_eq!((pull.waiting, &pull.waiters[..]), (2, &[waiter][..]));
        for name in ["r.io/a/b", "r.io/a/b:latest", &digest.to_string()] {
            assert!(pull.is_named(name), "{name}");
        }
        for name in ["r.io/a/b:1", "r.io/a", "", "sha256:00", &Digest::of(b"n").to_string()] {
            assert!(!pull.is_named(name), "{name}");
        }
        let text = serde_json::to_string(&pull).unwrap();
        assert!(text.contains(r#""state":"waiting""#), "{text}");
        assert!(text.contains(r#""phase":"fetching""#), "{text}");
        assert_eq!(serde_json::from_str::<PullUnderWay>(&text).unwrap(), pull);
    }
}
