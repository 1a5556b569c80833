//! How far a pull has come: counters that the pull writes and every caller may read.
//!
//! A layer has three: what came over the wire ([`LayerProgress::receive`]), what an earlier attempt or another layer had
//! ([`LayerProgress::keep`]), and how far the pipeline has unpacked it ([`LayerProgress::counter`]). All count compressed
//! bytes, and none ever falls.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::rate::{Meter, Pace};
use super::recipe;
use super::urgency::Urgency;
use crate::image::store::AccessRecord;
use crate::oci::digest::Digest;
use crate::oci::manifest::Manifest;

mod watch;

pub use watch::Watch;

/// One pull's counters. Written by its layers as they stream, read by progress bars and messages.
#[derive(Debug)]
pub struct Progress {
    /// The reference by which the pull was started.
    pub image: String,
    /// The image being pulled, by its [`ImageRecord::key`](crate::image::store::ImageRecord::key): the platform's manifest, or
    /// a choice of it.
    pub manifest: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<LayerProgress>,
    /// When the pull began.
    pub started: Instant,
    phase: AtomicU64,
    /// What all layers receive.
    meter: Arc<ClockedMeter>,
    /// Whose pull it is, if that is known.
    reader: Option<AccessRecord>,
    /// Whether anybody waits for it.
    urgency: Urgency,
}

/// A meter with its clock.
#[derive(Debug)]
struct ClockedMeter {
    begun: Instant,
    meter: Mutex<Meter>,
}

impl ClockedMeter {
    fn starting(begun: Instant) -> Self {
        Self { begun, meter: Mutex::default() }
    }

    fn add(&self, bytes: u64) {
        let at = self.begun.elapsed();
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).add(at, bytes);
    }

    fn pace(&self, left: Option<u64>) -> Pace {
        let at = self.begun.elapsed();
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).pace(at, left)
    }
}

/// What a pull is doing. A later phase never goes back to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Layers are being fetched.
    #[default]
    Fetching,
    /// The image waits for another that is being built.
    Waiting,
    /// The layers become one image.
    Building,
    /// Objects and image are written to the disk.
    Syncing,
}

const PHASES: [Phase; 4] = [Phase::Fetching, Phase::Waiting, Phase::Building, Phase::Syncing];

impl Phase {
    /// What happens when all layers are here.
    pub fn after_fetching(self) -> Option<&'static str> {
        match self {
            Self::Fetching => None,
            Self::Waiting => Some("waiting to build the image"),
            Self::Building => Some("building the image"),
            Self::Syncing => Some("writing the image to disk"),
        }
    }
}

/// One layer's counters.
#[derive(Debug)]
pub struct LayerProgress {
    /// The compressed blob.
    pub blob: Digest,
    /// Its size in bytes, as the manifest gives it.
    pub size: u64,
    here: AtomicU64,
    received: AtomicU64,
    kept: AtomicU64,
    unpacked: Arc<AtomicU64>,
    state: AtomicU64,
    meter: ClockedMeter,
    /// That of the whole pull.
    total: Arc<ClockedMeter>,
}

/// Where a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerState {
    /// It waits for a slot, or another pull is fetching it.
    Waiting,
    /// Bytes are arriving.
    Fetching,
    /// Bytes are arriving slowly: it made room for others.
    Aside,
    /// Everything has been checked and stored.
    Done,
    /// It was in the store already.
    Reused,
    /// It is not wanted.
    #[serde(rename = "left-out")]
    LeftOut,
}

const STATES: [LayerState; 6] = [
    LayerState::Waiting,
    LayerState::Fetching,
    LayerState::Aside,
    LayerState::Done,
    LayerState::Reused,
    LayerState::LeftOut,
];

impl Progress {
    /// Counters at zero for the blobs `(digest, size)` of `manifest`.
    pub(super) fn new(
        image: &str,
        manifest: Digest,
        layers: impl IntoIterator<Item = (Digest, u64)>,
    ) -> Self {
        let (image, started) = (image.to_owned(), Instant::now());
        let meter = Arc::new(ClockedMeter::starting(started));
        let layers = layers
            .into_iter()
            .map(|(blob, size)| LayerProgress {
                blob,
                size,
                here: AtomicU64::new(0),
                received: AtomicU64::new(0),
                kept: AtomicU64::new(0),
                unpacked: Arc::default(),
                state: AtomicU64::new(0),
                meter: ClockedMeter::starting(started),
                total: Arc::clone(&meter),
            })
            .collect();
        let (phase, urgency) = (AtomicU64::new(0), Urgency::urgent());
        Self { image, manifest, layers, started, phase, meter, reader: None, urgency }
    }

    /// What the pull is doing now.
    pub fn phase(&self) -> Phase {
        PHASES[(self.phase.load(Relaxed) as usize).min(PHASES.len() - 1)]
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(PHASES.iter().position(|p| *p == phase).unwrap_or(0) as u64, Relaxed);
    }

    /// Counters at zero for the parts of the manifest with this digest.
    pub(super) fn of(image: &str, digest: Digest, manifest: &Manifest) -> Self {
        Self::new(
            image,
            digest,
            recipe::layers(manifest).map(|layer| (layer.descriptor.digest, layer.descriptor.size)),
        )
    }

    /// Whether all layers are here and the image is being built of them.
    pub fn is_building(&self) -> bool {
        self.phase() != Phase::Fetching
    }

    /// Whether nothing of it is being done: its layers wait for a slot, or it for memory to be built.
    pub(super) fn is_waiting(&self) -> bool {
        let any = |states: &[LayerState]| self.layers.iter().any(|layer| states.contains(&layer.state()));
        match self.phase() {
            Phase::Fetching => {
                any(&[LayerState::Waiting]) && !any(&[LayerState::Fetching, LayerState::Aside])
            }
            // Of images that are built again nothing else is told.
            Phase::Waiting => !self.layers.is_empty(),
            Phase::Building | Phase::Syncing => false,
        }
    }

    /// The same, of a pull that one who reads as `reader` has begun.
    pub(super) fn begun_by(self, reader: AccessRecord) -> Self {
        Self { reader: Some(reader), ..self }
    }

    /// The same, of a pull that nobody waits for yet if it is `patient`.
    pub(super) fn patient_if(self, patient: bool) -> Self {
        if patient { Self { urgency: Urgency::patient(), ..self } } else { self }
    }

    /// Whether anybody waits for the pull.
    pub(super) fn urgency(&self) -> &Urgency {
        &self.urgency
    }

    /// The counters as a caller that reads as `reader` may see them. Those of another one's pull stay at zero: they would
    /// tell which layers that one had fetched before. `image` is how the caller names the image.
    pub(super) fn seen_by(self: &Arc<Self>, reader: &AccessRecord, image: &str) -> Arc<Self> {
        if self.reader.as_ref().is_none_or(|owner| owner == reader) {
            return Arc::clone(self);
        }
        let layers = self.layers.iter().map(|layer| (layer.blob, layer.size));
        let seen = Self::new(image, self.manifest, layers);
        // The choice is the caller's own, too.
        let wanted = self.layers.iter().enumerate().filter(|(_, layer)| layer.state() != LayerState::LeftOut);
        seen.leave_out_others(wanted.map(|(number, _)| number));
        Arc::new(seen)
    }

    /// Bytes that are here, fetched or reused.
    pub fn done(&self) -> u64 {
        self.layers.iter().map(LayerProgress::done).sum()
    }

    /// Bytes that came over the wire.
    pub fn fetched(&self) -> u64 {
        self.layers.iter().map(LayerProgress::fetched).sum()
    }

    /// Bytes of layers that were fetched in parts which need not be fetched, because their files were here.
    pub fn here(&self) -> u64 {
        self.layers.iter().map(LayerProgress::here).sum()
    }

    /// Bytes of all layers together that are wanted.
    pub fn total(&self) -> u64 {
        self.wanted().map(|layer| layer.size).fold(0, u64::saturating_add)
    }

    fn wanted(&self) -> impl Iterator<Item = &LayerProgress> {
        self.layers.iter().filter(|layer| layer.state() != LayerState::LeftOut)
    }

    /// The layers with other numbers than these are not wanted.
    pub(super) fn leave_out_others(&self, wanted: impl Iterator<Item = usize>) {
        let wanted: BTreeSet<usize> = wanted.collect();
        let others = self.layers.iter().enumerate().filter(|(number, _)| !wanted.contains(number));
        others.for_each(|(_, layer)| layer.set(LayerState::LeftOut));
    }

    /// How fast bytes come, and when all will be here. Nothing of what is done with them then can be foretold.
    pub fn pace(&self) -> Pace {
        let left = self.total().saturating_sub(self.done());
        if self.is_building() || left == 0 { Pace::default() } else { self.meter.pace(Some(left)) }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settled = self.layers.iter().filter(|layer| layer.is_stored()).count();
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        write!(
            f,
            "{:.1} of {:.1} MB, {settled} of {} layers",
            megabytes(self.done()),
            megabytes(self.total()),
            self.wanted().count()
        )?;
        match self.phase().after_fetching() {
            Some(doing) => write!(f, ", {doing}"),
            None => self.pace().fmt(f),
        }
    }
}

impl LayerProgress {
    /// Bytes of this layer that are here: received, or kept from before.
    pub fn done(&self) -> u64 {
        if self.is_stored() {
            return self.size;
        }
        let here = self.kept.load(Relaxed).saturating_add(self.here()).saturating_add(self.fetched());
        here.max(self.unpacked.load(Relaxed)).min(self.size)
    }

    /// Bytes of this layer that have been unpacked, counted compressed.
    pub fn unpacked(&self) -> u64 {
        if self.is_stored() { self.size } else { self.unpacked.load(Relaxed).min(self.size) }
    }

    /// Whether everything of it has been checked and stored. Its last byte may have come long before.
    fn is_stored(&self) -> bool {
        matches!(self.state(), LayerState::Done | LayerState::Reused)
    }

    /// Where the layer stands.
    pub fn state(&self) -> LayerState {
        STATES[(self.state.load(Relaxed) as usize).min(STATES.len() - 1)]
    }

    /// Bytes that came over the wire for this layer in this pull.
    pub fn fetched(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Bytes of it that need not be fetched, because its files are here.
    pub fn here(&self) -> u64 {
        self.here.load(Relaxed)
    }

    pub(super) fn set_here(&self, bytes: u64) {
        self.here.store(bytes, Relaxed);
    }

    /// Bytes per second that arrived lately; 0 until that is known.
    pub fn rate(&self) -> u64 {
        match self.state() {
            LayerState::Fetching | LayerState::Aside => self.meter.pace(None).rate.unwrap_or(0),
            _ => 0,
        }
    }

    /// Bytes came over the wire. What comes twice counts twice here, and not in [`LayerProgress::done`].
    pub(super) fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
        self.meter.add(bytes);
        self.total.add(bytes);
    }

    /// Begins to count what is unpacked from the first byte again.
    pub(super) fn restart(&self) {
        self.unpacked.store(0, Relaxed);
    }

    /// Bytes of the blob need not come: they are here from before, or made of what is here.
    pub(super) fn keep(&self, bytes: u64) {
        self.kept.fetch_add(bytes, Relaxed);
    }

    /// The counter that the pipeline adds to as it unpacks.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unpacked)
    }

    pub(super) fn set(&self, state: LayerState) {
        self.state.store(STATES.iter().position(|s| *s == state).unwrap_or(0) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_joins_sees_nothing_of_what_the_other_had() {
        let other = AccessRecord::Preloaded;
        let layers = [(Digest::of(b"a"), 1_000_000)];
        let progress = Progress::new("r.io/x:1", Digest::of(b"m"), layers).begun_by(AccessRecord::Anonymous);
        let progress = Arc::new(progress);
        progress.layers[0].set(LayerState::Reused);
        assert_eq!(
            progress.seen_by(&AccessRecord::Anonymous, "r.io/y:2").to_string(),
            "1.0 of 1.0 MB, 1 of 1 layers"
        );
        let seen = progress.seen_by(&other, "r.io/y:2");
        assert_eq!(
            (seen.to_string().as_str(), seen.image.as_str()),
            ("0.0 of 1.0 MB, 0 of 1 layers", "r.io/y:2")
        );
    }

    #[test]
    fn counts_reused_and_fetched_bytes() {
        let progress = Progress::new(
            "r.io/x:1",
            Digest::of(b"m"),
            [(Digest::of(b"a"), 1_000_000), (Digest::of(b"b"), 500_000)],
        );
        progress.layers[0].set(LayerState::Reused);
        progress.layers[1].set(LayerState::Fetching);
        progress.layers[1].receive(150_000);
        progress.layers[1].keep(50_000);
        progress.layers[1].counter().fetch_add(120_000, Relaxed);
        assert_eq!((progress.done(), progress.total()), (1_200_000, 1_500_000));
        assert_eq!(progress.to_string(), "1.2 of 1.5 MB, 1 of 2 layers");
        assert_eq!((progress.layers[0].fetched(), progress.layers[1].fetched()), (0, 150_000));
        assert_eq!(progress.layers[1].unpacked(), 120_000);
        // What came twice is not here twice.
        progress.layers[1].receive(900_000);
        assert_eq!((progress.done(), progress.fetched()), (1_500_000, 1_050_000));
    }

    #[test]
    fn says_what_happens_after_the_last_byte() {
        let progress = Progress::new("i", Digest::of(b"m"), [(Digest::of(b"a"), 1_000_000)]);
        progress.layers[0].set(LayerState::Fetching);
        progress.layers[0].counter().fetch_add(1_000_000, Relaxed);
        assert_eq!(progress.to_string(), "1.0 of 1.0 MB, 0 of 1 layers");
        progress.layers[0].set(LayerState::Done);
        progress.enter(Phase::Building);
        assert_eq!(progress.to_string(), "1.0 of 1.0 MB, 1 of 1 layers, building the image");
        for phase in PHASES {
            progress.enter(phase);
            assert_eq!(progress.phase(), phase.max(Phase::Building), "never back");
        }
    }
}
