//! Drives the connections of one blob: how many there are, and what becomes of each.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};

use super::super::extra::Extra;
use super::super::turns::{GaveWay, Tenant, Turn};
use super::RangeRules;
use super::feed::Feed;
use super::pieces::Pieces;
use super::worker::{Step, Worker};
use crate::fair::{Gate, Pass};
use crate::image::store::Partial;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, Source, SourceError, without_start};

/// One blob that is fetched into a file.
pub(in crate::pull) struct PartialFetch<'a> {
    pub source: &'a dyn Source,
    pub blob: &'a Descriptor,
    pub partial: Arc<Partial>,
    /// How many bytes of each piece were there before.
    pub have: Vec<u64>,
    pub rules: RangeRules,
    /// The connections of all blobs beyond the first of each.
    pub connections: &'a Gate<Tenant>,
    pub tenant: Tenant,
    /// Told how many bytes have come.
    pub count: &'a (dyn Fn(u64) + Sync),
}

/// What of the blob has not come by ranges.
pub(in crate::pull) enum Rest {
    Nothing,
    /// The bytes from this one on.
    From(u64),
    /// This stream, which holds them.
    Stream(BlobStream),
}

/// Why it ended before the blob did.
pub(in crate::pull) enum Stopped {
    /// The registry fails, and not for ranges.
    Source(SourceError),
    /// The layer had to make room for others.
    GaveWay(GaveWay),
}

impl From<GaveWay> for Stopped {
    fn from(why: GaveWay) -> Self {
        Self::GaveWay(why)
    }
}

/// The connections that there are.
struct Crew<'a> {
    working: FuturesUnordered<BoxFuture<'a, (Worker<'a>, Step)>>,
    /// How many of them are extra ones.
    extra: usize,
    /// Waits for the right to one more.
    asking: Option<BoxFuture<'static, Pass<Tenant>>>,
    /// How many there may be.
    at_once: usize,
    /// How many there may be once the registry has served a range.
    at_most: usize,
}

/// What happened.
enum Event<'a> {
    Step(Worker<'a>, Step),
    MayAdd(Pass<Tenant>),
    /// The pipeline has moved on.
    Moved,
}

impl<'a> PartialFetch<'a> {
    /// Fetches what is missing, as long as ranges serve. Whatever it returns, what has come without a gap goes to the
    /// pipeline, and the rest follows it.
    ///
    /// # Errors
    /// The registry fails for other reasons than ranges, or the layer had to make room.
    pub(in crate::pull) async fn run(mut self, turn: &mut Turn<'_>, feed: Feed) -> Result<Rest, Stopped> {
        let mut pieces = Pieces::new(self.partial.geometry(), std::mem::take(&mut self.have));
        let mut crew = Crew::new(self.rules.at_once);
        loop {
            feed.here(pieces.reached());
            if pieces.is_whole() || feed.is_gone() {
                feed.all(pieces.reached());
                return Ok(Rest::Nothing);
            }
            if turn.is_aside() && crew.extra > 0 {
                // Aside there is a trickle, which one connection brings. What the others had is kept.
                crew = Crew::new(crew.at_most);
                pieces.release_all();
            }
            let limit = feed.taken().saturating_add(self.rules.lead());
            self.engage(&mut crew, &mut pieces, limit, turn.is_aside());
            if crew.working.is_empty() {
                // The pipeline is the slower one, which is not the registry's fault.
                feed.moved().await;
                continue;
            }
            let (worker, step) = match turn.during(crew.event(&feed)).await? {
                Event::Moved => continue,
                Event::MayAdd(pass) => {
                    self.add(&mut crew, &mut pieces, limit, Some(pass));
                    continue;
                }
                Event::Step(worker, step) => (worker, step),
            };
            match step {
                Step::Began => {
                    crew.at_once = if self.source.takes_extra_ranges() { crew.at_most } else { 1 };
                    self.go_on(&crew, &pieces, worker);
                }
                Step::Wrote(bytes) => {
                    pieces.came(worker.piece, bytes);
                    (self.count)(bytes);
                    feed.here(pieces.reached());
                    // Before the next step begins: what waits here is no slow registry.
                    turn.took(usize::try_from(bytes).unwrap_or(usize::MAX)).await?;
                    self.go_on(&crew, &pieces, worker);
                }
                Step::Done | Step::GaveWay => crew.leave(worker, &mut pieces),
                // Whoever ignores one range may ignore the next: this answer is as good as another.
                Step::Whole(stream) => {
                    let reached = pieces.reached();
                    feed.all(reached);
                    return Ok(Rest::Stream(without_start(stream, reached)));
                }
                // The registry does not keep to ranges after all.
                Step::Failed(error @ (SourceError::Protocol { .. } | SourceError::WrongSize { .. })) => {
                    return Ok(self.without_ranges(&pieces, feed, &error.to_string()));
                }
                Step::Failed(error) if crew.working.is_empty() => return Err(Stopped::Source(error)),
                // One connection less is no failure: some registries limit them.
                Step::Failed(error) => {
                    tracing::debug!(blob = %self.blob.digest, %error, "one connection for the layer from now on");
                    crew.at_most = 1;
                    crew.at_once = 1;
                    crew.leave(worker, &mut pieces);
                }
                Step::Refused(error) => {
                    return Ok(self.without_ranges(&pieces, feed, &error.to_string()));
                }
                Step::NotKept(why) => {
                    tracing::info!(blob = %self.blob.digest, why, "goes on without keeping what comes of the layer");
                    let reached = pieces.reached();
                    feed.give_up(reached);
                    return Ok(Rest::From(reached));
                }
            }
        }
    }

    /// Starts what is missing: the first connection at once, and others in their turn.
    fn engage(&self, crew: &mut Crew<'a>, pieces: &mut Pieces, limit: u64, aside: bool) {
        if crew.working.len() == crew.extra {
            self.add(crew, pieces, limit, None);
        }
        let more = !aside && crew.working.len() < crew.at_once && pieces.has_next(limit);
        match (more && self.rules.connections > 0, &crew.asking) {
            (true, None) => {
                let (gate, tenant) = (self.connections.clone(), self.tenant.clone());
                crew.asking = Some(async move { gate.enter(tenant, 1).await }.boxed());
            }
            (true, Some(_)) => {}
            (false, _) => crew.asking = None,
        }
    }

    fn add(&self, crew: &mut Crew<'a>, pieces: &mut Pieces, limit: u64, extra: Option<Pass<Tenant>>) {
        let Some(piece) = pieces.take(limit) else { return };
        let worker = Worker::new((self.source, self.blob), &self.partial, piece, extra.map(Extra::new));
        crew.extra += usize::from(worker.is_extra());
        self.go_on(crew, pieces, worker);
    }

    fn go_on(&self, crew: &Crew<'a>, pieces: &Pieces, worker: Worker<'a>) {
        let left = self.blob.size.saturating_sub(pieces.sum());
        crew.working.push(worker.step(left).boxed());
    }

    /// The usual stream from here on.
    fn without_ranges(&self, pieces: &Pieces, feed: Feed, why: &str) -> Rest {
        let reached = pieces.reached();
        tracing::debug!(blob = %self.blob.digest, why, reached, "no more ranges of the layer");
        feed.all(reached);
        Rest::From(reached)
    }
}

impl<'a> Crew<'a> {
    fn new(at_most: usize) -> Self {
        let working = FuturesUnordered::new();
        Self { working, extra: 0, asking: None, at_once: 1, at_most: at_most.max(1) }
    }

    async fn event(&mut self, feed: &Feed) -> Event<'a> {
        let asking = async {
            match &mut self.asking {
                Some(asking) => asking.await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            Some((worker, step)) = self.working.next() => Event::Step(worker, step),
            pass = asking => Event::MayAdd(pass),
            // There is work for one more once the pipeline has moved on.
            () = feed.moved(), if self.working.len() < self.at_once => Event::Moved,
        };
        if matches!(event, Event::MayAdd(_)) {
            self.asking = None;
        }
        event
    }

    fn leave(&mut self, worker: Worker<'a>, pieces: &mut Pieces) {
        self.extra -= usize::from(worker.is_extra());
        pieces.release(worker.piece);
    }
}
