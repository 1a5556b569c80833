//! Ranges of many layers at once from a source that counts: what is asked for at a time, and what is held.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::*;
use crate::fair::Gate;
use crate::image::store::AccessRecord;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;
use crate::oci::{BlobStream, Ranged, RawManifest, Referrer, Source, SourceError};
use crate::pull::PullMetrics;
use crate::pull::chunked::memory::{Lent, RangeMemory};
use crate::pull::chunked::request::REQUEST_MAX;
use crate::pull::progress::Progress;
use crate::pull::turns::{Tenant, TurnRules, Turns};
use crate::pull::urgency::Urgency;

/// Bytes that come at a time.
const CHUNK: u64 = 100_000;

/// The bytes of a blob, which tell where they are.
fn content(range: Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while range.start + (bytes.len() as u64) < range.end {
        let at = range.start + bytes.len() as u64;
        let end = range.end.min((at / 1000 + 1) * 1000);
        bytes.resize((end - range.start) as usize, (at / 1000) as u8);
    }
    bytes
}

#[derive(Debug)]
struct Counting {
    /// Bytes that came.
    sent: AtomicU64,
    /// Answers that are being read, and the most at a time.
    now: AtomicUsize,
    most: AtomicUsize,
    /// Whether a connection beside another is refused, and how many were asked for.
    alone: AtomicBool,
    extras: AtomicUsize,
    /// How many more chunks may come.
    chunks: Semaphore,
}

#[derive(Debug)]
struct Counted(Arc<Counting>);

/// An answer that is being read.
struct Reading(Arc<Counting>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl Source for Counted {
    async fn resolve(&self, _: &Version) -> Result<Digest, SourceError> {
        unreachable!()
    }

    async fn manifest(&self, _: &Version) -> Result<RawManifest, SourceError> {
        unreachable!()
    }

    async fn blob(&self, _: &Descriptor) -> Result<BlobStream, SourceError> {
        unreachable!()
    }

    fn has_ranges(&self) -> bool {
        true
    }

    async fn blob_range(&self, _: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        let reading = Reading(Arc::clone(&self.0));
        self.0.most.fetch_max(self.0.now.fetch_add(1, SeqCst) + 1, SeqCst);
        let starts = range.clone().step_by(CHUNK as usize);
        let chunks = stream::iter(starts).then(move |start| {
            let counts = Arc::clone(&reading.0);
            let chunk = start..range.end.min(start + CHUNK);
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                counts.chunks.acquire().await.unwrap().forget();
                counts.sent.fetch_add(chunk.end - chunk.start, SeqCst);
                Ok(content(chunk).into())
            }
        });
        Ok(Ranged::Part(chunks.boxed()))
    }

    async fn extra_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Ranged, SourceError> {
        self.0.extras.fetch_add(1, SeqCst);
        if !self.0.alone.load(SeqCst) {
            return self.blob_range(blob, range).await;
        }
        let (subject, host) = ("blob".to_owned(), "r.io".to_owned());
        Err(SourceError::Unreachable { subject, host, detail: "one connection is enough".to_owned() })
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Referrer>, SourceError> {
        unreachable!()
    }
}

/// What all layers share.
struct Node {
    counting: Arc<Counting>,
    turns: Turns,
    connections: Gate<Tenant>,
    memory: RangeMemory,
}

fn tenant() -> Tenant {
    ("r.io".to_owned(), AccessRecord::Anonymous)
}

fn blob(size: u64) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: Digest::of(b"blob"),
        size,
        annotations: Default::default(),
    }
}

impl Node {
    /// One that lends so many connections, and has slots for `slots` layers.
    fn new(connections: u64, slots: usize, rules: TurnRules) -> Arc<Self> {
        let counting = Counting {
            sent: AtomicU64::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            alone: AtomicBool::new(false),
            extras: AtomicUsize::new(0),
            chunks: Semaphore::new(1 << 20),
        };
        Arc::new(Self {
            counting: Arc::new(counting),
            turns: Turns::new(slots, rules),
            connections: Gate::new(connections, connections),
            memory: RangeMemory::default(),
        })
    }

    fn sent(&self) -> u64 {
        self.counting.sent.load(SeqCst)
    }

    fn ranges<'a>(
        &'a self,
        source: &'a Counted,
        blob: &'a Descriptor,
        metrics: &'a PullMetrics,
    ) -> Ranges<'a> {
        let lent = Lent { tenant: tenant(), connections: Some(&self.connections), memory: &self.memory };
        Ranges { image: "r.io/x:1", source, blob, lent, metrics }
    }

    /// Feeds `count` ranges of `length` bytes, and takes what comes of them once `released` says so.
    async fn layer(self: Arc<Self>, (count, length): (u64, u64), mut released: watch::Receiver<bool>) {
        let blob = blob(count * 2 * length);
        let source = Counted(Arc::clone(&self.counting));
        let progress = Progress::new("r.io/x:1", blob.digest, [(blob.digest, blob.size)]);
        let mut turn = self.turns.begin(tenant(), &progress.layers[0], &Urgency::urgent()).await;
        let metrics = PullMetrics::default();
        let ranges = self.ranges(&source, &blob, &metrics);
        let runs: Vec<Run> = (0..count).map(|n| n * 2 * length..(n * 2 + 1) * length).collect();
        let (sender, mut receiver) = mpsc::channel::<Part>(1);
        let wanted = runs.clone();
        let taking = async {
            released.wait_for(|released| *released).await.unwrap();
            for run in wanted {
                let part = receiver.recv().await.expect("a part");
                assert!(part.start == run.start && part.bytes == content(run), "the part at {}", part.start);
            }
            assert!(receiver.recv().await.is_none());
        };
        let (fed, ()) = tokio::join!(ranges.feed(runs, 16, sender, &mut turn), taking);
        assert!(fed.is_ok());
    }
}

/// So many layers, which are fed; what comes is taken when that is sent.
fn layers(node: &Arc<Node>, count: usize, size: (u64, u64)) -> (watch::Sender<bool>, JoinSet<()>) {
    let (release, released) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(Arc::clone(node).layer(size, released.clone()));
    }
    (release, tasks)
}

async fn ended((release, mut tasks): (watch::Sender<bool>, JoinSet<()>)) {
    release.send(true).unwrap();
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

#[tokio::test]
async fn all_layers_together_have_the_connections_of_the_node() {
    let node = Node::new(5, 64, TurnRules::default());
    ended(layers(&node, 6, (40, 250_000))).await;
    let most = node.counting.most.load(SeqCst);
    // The first of each, and what is lent.
    assert!((7..=6 + 5).contains(&most), "{most}");
    assert_eq!(node.sent(), 6 * 40 * 250_000, "nothing is fetched twice");
    assert_eq!(node.connections.occupancy().used, 0);
}

#[tokio::test]
async fn what_waits_for_its_turn_has_a_bound_over_all_layers() {
    let node = Node::new(64, 64, TurnRules::default());
    let under_way = layers(&node, 12, (6, REQUEST_MAX));
    // Nobody takes anything, so it comes to a stand.
    let (mut seen, mut still) = (0, 0);
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        still = if node.sent() == seen && node.counting.now.load(SeqCst) == 0 { still + 1 } else { 0 };
        seen = node.sent();
    }
    // What is lent to one tenant, and of each layer a request of its own and the part that was sent on.
    let (lent, own) = (24 << 20, 12 * 2 * REQUEST_MAX);
    assert!(seen > lent && seen <= lent + own, "{seen}");
    ended(under_way).await;
    assert_eq!(node.sent(), 12 * 6 * REQUEST_MAX);
}

#[tokio::test]
async fn a_registry_that_wants_one_connection_gets_one() {
    let node = Node::new(5, 64, TurnRules::default());
    node.counting.alone.store(true, SeqCst);
    ended(layers(&node, 1, (40, 50_000))).await;
    assert_eq!(node.counting.most.load(SeqCst), 1);
    // Those that were lent a connection before the first was refused.
    assert!((1..=5).contains(&node.counting.extras.load(SeqCst)));
    assert_eq!(node.connections.occupancy().used, 0);
}

#[tokio::test]
async fn aside_a_layer_has_one_connection_and_keeps_what_has_come() {
    let node = Node::new(12, 64, TurnRules::default());
    let (blob, source) = (blob(8_000_000), Counted(Arc::clone(&node.counting)));
    let metrics = PullMetrics::default();
    let ranges = node.ranges(&source, &blob, &metrics);
    let connections = Connections::default();
    let mut requests = Requests::new(&ranges, &connections);
    let counting = &node.counting;
    // Of one of the four, or of two.
    counting.chunks.forget_permits(1 << 20);
    counting.chunks.add_permits(2);
    let runs: Vec<Run> = (0..4).map(|n| n * 1_000_000..n * 1_000_000 + 3 * CHUNK).collect();
    runs.iter().for_each(|run| requests.add(run.clone(), None));
    while node.sent() < 2 * CHUNK || counting.now.load(SeqCst) < 4 {
        let early = tokio::time::timeout(Duration::from_millis(5), requests.next()).await;
        assert!(early.is_err());
    }
    assert_eq!((counting.most.swap(0, SeqCst), node.connections.occupancy().used), (4, 3));
    requests.set_aside(true);
    assert_eq!((counting.now.load(SeqCst), node.connections.occupancy().used), (0, 0));
    counting.chunks.add_permits(1 << 20);
    for run in runs {
        let Some(Ok(arrived)) = requests.next().await else { panic!("no part at {run:?}") };
        assert!(arrived.part.start == run.start && arrived.part.bytes == content(run));
    }
    assert_eq!(counting.most.load(SeqCst), 1);
    assert_eq!(node.sent(), 4 * 3 * CHUNK, "nothing that has come comes again");
}

#[tokio::test]
async fn layers_that_stand_aside_again_and_again_come_whole() {
    let look = Duration::from_millis(10);
    let rules = TurnRules { look, turn: Duration::ZERO, trickle: 8 << 20, places: 16 };
    // One slot for two layers.
    let node = Node::new(12, 1, rules);
    ended(layers(&node, 2, (60, 2 * CHUNK))).await;
    assert!(node.sent() >= 2 * 60 * 2 * CHUNK);
    assert_eq!(node.connections.occupancy().used, 0);
}
