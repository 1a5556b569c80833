//! Slots for layers are borrowed in turns ([ADR 0020](../../docs/adr/0020-turns.md)).
//!
//! A layer starts in a slot, when its tenant's turn comes ([`crate::fair`]). While others wait, it is looked at every
//! few seconds. If its registry is slow, or its turn is over, it gives the slot back and steps aside: it goes on, but no
//! faster than a trickle, in one of a few places. A registry that could send more than the trickle has the layer wait for
//! its next turn; to a slower one a slot is of no use. If the places are full, the slowest layer of the tenant with the
//! most of them is given up.
//!
//! So every layer that has started goes on, whatever starts after it, and what runs at the same time stays bounded.

mod aside;
mod turn;

use std::time::Duration;

use self::aside::Aside;
pub(super) use self::turn::{GaveWay, Turn};
use super::busy::Occupied;
use super::progress::LayerProgress;
use super::urgency::Urgency;
use crate::fair::{Gate, Pass};
use crate::image::store::AccessRecord;

/// A registry's host and who reads there: what shares are for.
pub(super) type Tenant = (String, AccessRecord);

/// Where a tenant's layers wait for slots. Those that nobody waits for yet have a line, and a share, of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    tenant: Tenant,
    behind: bool,
}

/// How long turns are, and what is beside the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnRules {
    /// How often a layer is looked at.
    pub look: Duration,
    /// The longest turn in a slot while others wait.
    pub turn: Duration,
    /// Bytes per second of a layer that stands aside, and what a registry must send to be worth a slot.
    pub trickle: u64,
    /// Layers that stand aside at a time.
    pub places: usize,
}

impl Default for TurnRules {
    fn default() -> Self {
        let (look, turn) = (Duration::from_secs(5), Duration::from_secs(20));
        Self { look, turn, trickle: 64 << 10, places: 16 }
    }
}

/// What was seen of a layer since the last look.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    /// How long its registry was waited for. The disk and our own brake are not the registry's fault.
    waited: Duration,
}

impl Seen {
    /// Bytes per second that the registry could send.
    fn rate(self) -> u64 {
        (self.bytes as f64 / self.waited.max(Duration::from_millis(1)).as_secs_f64()) as u64
    }
}

impl TurnRules {
    /// Whether a layer that others wait for gives its slot back.
    fn is_over(&self, seen: Seen, in_slot: Duration) -> bool {
        in_slot >= self.turn || self.is_slow(seen)
    }

    fn is_slow(&self, seen: Seen) -> bool {
        // While the disk is waited for, nothing is known of the registry.
        seen.waited * 2 >= self.look && seen.rate() < self.trickle
    }
}

/// The slots of a node, and the places beside them.
#[derive(Debug)]
pub(super) struct Turns {
    gate: Gate<Lane>,
    aside: Aside,
    rules: TurnRules,
}

impl Turns {
    /// `slots` for all tenants. One of them is kept for tenants that have none.
    pub(super) fn new(slots: usize, rules: TurnRules) -> Self {
        let slots = slots.max(1) as u64;
        Self {
            gate: Gate::new(slots, slots.saturating_sub(1).max(1)),
            aside: Aside::new(rules.places),
            rules,
        }
    }

    /// How many slots are in use, and how many places beside them.
    pub(super) fn busy(&self) -> (Occupied, Occupied) {
        let (places, taken) = self.aside.taken();
        (self.gate.occupancy().into(), Occupied { total: places as u64, used: taken as u64, waiting: 0 })
    }

    /// Waits for the first turn of a layer.
    pub(super) async fn begin<'a>(
        &'a self,
        tenant: Tenant,
        progress: &'a LayerProgress,
        urgency: &Urgency,
    ) -> Turn<'a> {
        let pass = enter(self.gate.clone(), tenant.clone(), urgency.clone()).await;
        Turn::new(self, tenant, pass, progress, urgency.clone())
    }
}

/// Waits for a slot: behind all others, unless and until the pull is urgent.
async fn enter(gate: Gate<Lane>, tenant: Tenant, urgency: Urgency) -> Pass<Lane> {
    if !urgency.is_urgent() {
        let lane = Lane { tenant: tenant.clone(), behind: true };
        tokio::select! {
            biased;
            pass = gate.enter_behind(lane, 1) => return pass,
            () = urgency.becomes_urgent() => {}
        }
    }
    gate.enter(Lane { tenant, behind: false }, 1).await
}

#[cfg(test)]
mod tests;
