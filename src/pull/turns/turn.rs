//! One layer's turns: in a slot, aside, and back.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::aside::Place;
use super::{Lane, Seen, Tenant, Turns};
use crate::fair::Pass;
use crate::pull::progress::{LayerProgress, LayerState};
use crate::pull::urgency::Urgency;

/// A layer that streams. It must read through [`Turn::during`] and report to [`Turn::took`].
pub(in crate::pull) struct Turn<'a> {
    turns: &'a Turns,
    tenant: Tenant,
    progress: &'a LayerProgress,
    at: At,
    /// Since when it is there.
    since: Instant,
    looked: Instant,
    seen: Seen,
    /// What its registry sent before the last look, in bytes per second.
    rate: u64,
    /// Whether anybody waits for its pull.
    urgency: Urgency,
}

/// Where a layer is.
enum At {
    Slot(Pass<Lane>),
    Aside {
        place: Place,
        /// When the next bytes may come.
        due: Instant,
        /// Waits for the next turn, if a slot would help.
        back: Option<BoxFuture<'static, Pass<Lane>>>,
    },
}

/// The layer had to make room for others; at this rate, in bytes per second, it was the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pull) struct GaveWay {
    /// What its registry sent.
    pub rate: u64,
}

/// What can happen to a layer while something else is waited for.
enum Event {
    Look,
    Back(Pass<Lane>),
    GivenUp,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        turns: &'a Turns,
        tenant: Tenant,
        pass: Pass<Lane>,
        progress: &'a LayerProgress,
        urgency: Urgency,
    ) -> Self {
        let now = Instant::now();
        progress.set(LayerState::Fetching);
        let seen = Seen::default();
        let at = At::Slot(pass);
        Self { turns, tenant, progress, at, since: now, looked: now, seen, rate: 0, urgency }
    }

    /// Whether the layer stands aside.
    pub(in crate::pull) fn is_aside(&self) -> bool {
        matches!(self.at, At::Aside { .. })
    }

    /// Waits for the registry.
    ///
    /// # Errors
    /// The layer had to give way; `reading` has been dropped.
    pub(in crate::pull) async fn during<T>(
        &mut self,
        reading: impl Future<Output = T>,
    ) -> Result<T, GaveWay> {
        let mut reading = pin!(reading);
        loop {
            let began = Instant::now();
            let event = tokio::select! {
                biased;
                event = self.event() => event,
                done = &mut reading => {
                    self.seen.waited += began.elapsed();
                    return Ok(done);
                }
            };
            self.seen.waited += began.elapsed();
            self.follow(event)?;
        }
    }

    /// Counts what was read. A layer that stands aside waits here, and nothing is read meanwhile.
    ///
    /// # Errors
    /// The layer had to give way.
    pub(in crate::pull) async fn took(&mut self, bytes: usize) -> Result<(), GaveWay> {
        self.seen.bytes += bytes as u64;
        self.progress.receive(bytes as u64);
        self.brake(bytes);
        loop {
            let At::Aside { due, .. } = &self.at else { return Ok(()) };
            let due = *due;
            let event = tokio::select! {
                biased;
                event = self.event() => event,
                () = sleep_until(due) => return Ok(()),
            };
            self.follow(event)?;
        }
    }

    /// Sets when the next bytes may come. Where that is not at once, a slot would help.
    fn brake(&mut self, bytes: usize) {
        let (gate, tenant, rules) = (&self.turns.gate, &self.tenant, &self.turns.rules);
        let At::Aside { due, back, .. } = &mut self.at else { return };
        let now = Instant::now();
        // A second's worth may come at once: bytes come in chunks.
        let from = (*due).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
        *due = from + Duration::from_secs_f64(bytes as f64 / rules.trickle.max(1) as f64);
        if *due > now && back.is_none() {
            *back = Some(super::enter(gate.clone(), tenant.clone(), self.urgency.clone()).boxed());
        }
    }

    async fn event(&mut self) -> Event {
        let look = sleep_until(self.looked + self.turns.rules.look);
        match &mut self.at {
            At::Slot(_) => {
                look.await;
                Event::Look
            }
            At::Aside { place, back, .. } => tokio::select! {
                biased;
                () = place.given_up.cancelled() => Event::GivenUp,
                pass = returning(back) => Event::Back(pass),
                () = look => Event::Look,
            },
        }
    }

    fn follow(&mut self, event: Event) -> Result<(), GaveWay> {
        match event {
            Event::GivenUp => return Err(GaveWay { rate: self.rate }),
            Event::Back(pass) => self.go(At::Slot(pass), LayerState::Fetching),
            Event::Look => self.look(),
        }
        Ok(())
    }

    fn look(&mut self) {
        let seen = self.seen;
        self.rate = seen.rate();
        match &self.at {
            At::Slot(pass) if self.is_over(pass) && pass.is_wanted() => {
                // The place comes first: the slot's next owner must not find this layer in neither.
                let place = self.turns.aside.take(self.tenant.clone(), seen.rate());
                self.go(At::Aside { place, due: Instant::now(), back: None }, LayerState::Aside);
            }
            At::Slot(_) => {}
            At::Aside { place, .. } => place.note_rate(seen.rate()),
        }
        (self.looked, self.seen) = (Instant::now(), Seen::default());
    }

    /// Whether the slot is given back if somebody wants it. What nobody waits for gives way at once to what somebody does.
    fn is_over(&self, pass: &Pass<Lane>) -> bool {
        let gives_way = !self.urgency.is_urgent() && pass.is_wanted_in_front();
        gives_way || self.turns.rules.is_over(self.seen, self.since.elapsed())
    }

    fn go(&mut self, at: At, state: LayerState) {
        (self.at, self.since) = (at, Instant::now());
        self.progress.set(state);
    }
}

/// The pass of one who waits; nothing ever, for one who does not.
async fn returning(back: &mut Option<BoxFuture<'static, Pass<Lane>>>) -> Pass<Lane> {
    match back {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
