//! One attempt to fetch a layer in parts.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::list::list_contents;
use super::memory::Lent;
use super::ranges::Ranges;
use super::request::REQUEST_MAX;
use super::search::{self, ListedLayer};
use super::words::{Stop, Tables};
use crate::image::chunked::{
    self, Doubt, Part, Plan, Positions, Rebuild, Run, Section, TarSplit, Toc, Wire, compare,
};
use crate::image::layer::{self, LayerError, LayerFault};
use crate::image::store::{Hold, Store};
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, ImageLimits};
use crate::pull::blocking::{background, blocking};
use crate::pull::error::{About as _, PullError};
use crate::pull::layers::{ImageLayers, LayerFetcher, WantedLayer};
use crate::pull::metrics::{PartialOutcome, Reuse};
use crate::pull::turns::Turn;

/// Parts that wait between the network and the rebuilding, besides those that are held until their turn.
const PARTS_IN_FLIGHT: usize = 1;

/// An attempt, and what it has found out so far.
pub(super) struct Attempt<'a> {
    fetcher: &'a LayerFetcher,
    pull: &'a ImageLayers<'a>,
    layer: &'a WantedLayer<'a>,
    positions: Positions,
    /// The DiffID that it must have.
    claimed: Digest,
    toc: Option<Arc<Toc>>,
    /// The table was no good.
    unsound: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        fetcher: &'a LayerFetcher,
        pull: &'a ImageLayers<'a>,
        layer: &'a WantedLayer<'a>,
        (positions, claimed): (Positions, Digest),
    ) -> Self {
        Self { fetcher, pull, layer, positions, claimed, toc: None, unsound: false }
    }

    /// What is known of the layer's table when the attempt has failed.
    pub(super) fn into_tables(self) -> Tables {
        match self.toc {
            Some(toc) => Tables::Read(toc),
            None if self.unsound => Tables::None,
            None => Tables::At(self.positions),
        }
    }

    /// Fetches the layer. Returns its DiffID, which is the claimed one.
    ///
    /// # Errors
    /// [`Stop::Whole`] for every doubt.
    pub(super) async fn run(&mut self, lists: Vec<ListedLayer>, turn: &mut Turn<'_>) -> Result<Digest, Stop> {
        let toc = self.read_toc(turn).await?;
        let plan = self.plan(&toc, lists).await?;
        let split = self.read_split(&toc, turn).await?;
        let (size, wire) = (self.layer.part.blob.size, self.wire_bytes(&plan));
        self.layer.progress.set_here(size.saturating_sub(wire));
        let rebuilt = self.rebuild(&toc, plan, split, turn).await;
        match &rebuilt {
            Ok(_) => self.fetcher.metrics.saved(Reuse::File, size.saturating_sub(wire)),
            Err(_) => self.layer.progress.set_here(0),
        }
        rebuilt
    }

    async fn read_toc(&mut self, turn: &mut Turn<'_>) -> Result<Arc<Toc>, Stop> {
        let packed = self.table(&self.positions.toc, turn).await?;
        let (positions, entries) = (self.positions, self.fetcher.limits.entries);
        let read = blocking(self.pull.image, move || Toc::read(&packed, &positions, entries)).await?;
        // A table that is no good is not looked at again as the whole layer passes by.
        self.unsound = read.is_err();
        let toc = Arc::new(read.map_err(|doubt| Stop::whole(PartialOutcome::Tables, doubt))?);
        self.toc = Some(Arc::clone(&toc));
        Ok(toc)
    }

    /// What is fetched, if enough is here.
    async fn plan(&self, toc: &Arc<Toc>, lists: Vec<ListedLayer>) -> Result<Plan, Stop> {
        let (store, hold, image) = (Arc::clone(&self.fetcher.store), self.pull.hold.clone(), self.pull.image);
        let (toc, name, rules) = (Arc::clone(toc), image.to_owned(), self.fetcher.partial.rules);
        let look = move || {
            let found = search::find(&store, &hold, lists, &toc, &name)?;
            Ok::<_, PullError>(Plan::of(&toc, &found, rules))
        };
        let plan = blocking(image, look).await??;
        let (bytes, size) = (self.wire_bytes(&plan), self.layer.part.blob.size);
        // Where little is here, one request is quicker than hundreds.
        if bytes > size / 10 * 9 {
            let why = format!("{bytes} of its {size} bytes would have to be fetched");
            return Err(Stop::whole(PartialOutcome::NotWorth, why));
        }
        Ok(plan)
    }

    /// Bytes of the layer that come over the wire, the tables included.
    fn wire_bytes(&self, plan: &Plan) -> u64 {
        plan.bytes() + self.positions.toc.length + self.positions.tar_split.length
    }

    async fn read_split(&self, toc: &Arc<Toc>, turn: &mut Turn<'_>) -> Result<Bytes, Stop> {
        let packed = self.table(&self.positions.tar_split, turn).await?;
        let (toc, split, section) = (Arc::clone(toc), packed.clone(), self.positions.tar_split);
        let compare = move || compare(&mut TarSplit::open(&split, &section, &toc.tar_split)?, &toc);
        match blocking(self.pull.image, compare).await? {
            Ok(_) => Ok(packed),
            Err(doubt) => Err(Stop::whole(PartialOutcome::Tables, doubt)),
        }
    }

    /// A table's compressed bytes, of which [`Positions`] bounds the number.
    async fn table(&self, section: &Section, turn: &mut Turn<'_>) -> Result<Bytes, Stop> {
        self.ranges().read(section.range(), turn).await
    }

    async fn rebuild(
        &self,
        toc: &Arc<Toc>,
        plan: Plan,
        split: Bytes,
        turn: &mut Turn<'_>,
    ) -> Result<Digest, Stop> {
        let image = self.pull.image;
        let runs: Vec<Run> = chunked::cut(plan.runs.clone(), REQUEST_MAX);
        let (sender, receiver) = mpsc::channel(PARTS_IN_FLIGHT);
        let task = Rebuilding {
            store: Arc::clone(&self.fetcher.store),
            hold: self.pull.hold.clone(),
            image: image.to_owned(),
            blob: self.layer.part.blob.digest,
            size: self.layer.part.blob.size,
            claimed: self.claimed,
            toc: Arc::clone(toc),
            plan,
            split,
            section: self.positions.tar_split,
            limits: self.fetcher.limits,
            budget: Arc::clone(&self.pull.budget),
        };
        let pipeline = background(image, move || task.run(receiver));
        // The sender goes with the call, which ends the pipeline.
        let fed = self.ranges().feed(runs, self.fetcher.partial.connections, sender, turn).await;
        let outcome = pipeline.outcome().await?;
        // The error of a range explains more than that of the tar which it cuts short.
        fed?;
        outcome
    }

    fn ranges(&self) -> Ranges<'_> {
        let ImageLayers { image, source, rights, .. } = *self.pull;
        let LayerFetcher { connections, range_memory, ranges, metrics, .. } = self.fetcher;
        let connections = (ranges.connections > 0).then_some(connections);
        let lent = Lent { tenant: rights.tenant(), connections, memory: range_memory };
        Ranges { image, source, blob: &self.layer.part.blob, lent, metrics }
    }
}

/// The blocking half: from parts to a layer in the store.
struct Rebuilding {
    store: Arc<Store>,
    hold: Hold,
    image: String,
    blob: Digest,
    size: u64,
    claimed: Digest,
    toc: Arc<Toc>,
    plan: Plan,
    split: Bytes,
    section: Section,
    limits: ImageLimits,
    budget: Arc<Budget>,
}

impl Rebuilding {
    /// Stores the layer, if its DiffID is the claimed one: it alone proves what was put together.
    fn run(self, mut parts: mpsc::Receiver<Part>) -> Result<Digest, Stop> {
        let budget = Budget::attempt(&self.budget);
        let wire = Wire::new(std::iter::from_fn(move || parts.blocking_recv()));
        let stored = self.store(wire, &budget);
        // The whole layer counts anew.
        if matches!(stored, Err(Stop::Whole { .. })) {
            budget.give_back();
        }
        stored
    }

    fn store(&self, wire: Wire, budget: &Budget) -> Result<Digest, Stop> {
        let Self { image, toc, plan, hold, .. } = self;
        let doubtful = |doubt: Doubt| Stop::whole(PartialOutcome::Content, doubt);
        let split = TarSplit::reopen(&self.split, &self.section).map_err(doubtful)?;
        let objects = self.store.objects().under(hold).about(image)?;
        let record = self.store.layers().stage(hold).about(image)?;
        let tar = Rebuild::new(toc, plan, split, &objects, wire);
        let limits = layer::TarLimits::for_blob(&self.limits, self.size);
        let taken = layer::ingest_tar(&self.blob, tar, &objects, record, &limits, budget);
        let (found, record) = taken.map_err(|error| stop(error, image))?;
        if found.diff_id != self.claimed {
            let why = format!("put together, it is {}, and not {}", found.diff_id, self.claimed);
            return Err(Stop::whole(PartialOutcome::Content, why));
        }
        // Under the DiffID, not the blob: its bytes were not seen, so nothing is known of its digest.
        record.finish(&found.diff_id, &found.blob).about(image)?;
        list_contents(&self.store, (&found.blob, &found.diff_id), toc);
        Ok(found.diff_id)
    }
}

/// Content that is no good may be so because of the parts; a limit or a full disk is the same for the whole layer.
fn stop(error: LayerError, image: &str) -> Stop {
    match &error.fault {
        LayerFault::Source(error) => Stop::whole(PartialOutcome::Content, error),
        LayerFault::Tar(error) => Stop::whole(PartialOutcome::Content, error),
        _ => Stop::Pull(PullError::Layer { image: image.to_owned(), source: Arc::new(error) }),
    }
}
