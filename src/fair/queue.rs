//! Who is let in next. Pure: it neither waits nor knows what the units are.
//!
//! Tenants wait in line, each with a line of its own in which the first comes first. Of the tenants, the one that has
//! the least inside is next; of equals, the one whose last turn is longest ago. What is asked for may not fit: then
//! others go first, but no tenant is passed by more than [`PATIENCE`] times. After that nobody is let in before it, so
//! that what it needs comes together. A tenant never holds more than its share, unless that one thing alone is more.
//!
//! Some stand behind the others ([`Queue::enter_behind`]): nothing of theirs is let in while anything of the others waits
//! that may have room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How often others may go before a tenant that could be let in as soon as there is room.
const PATIENCE: u32 = 8;

/// One thing that waits or is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// How much is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Units in all.
    pub capacity: u64,
    /// Units inside.
    pub used: u64,
    /// Things in line.
    pub waiting: u64,
}

/// The lines of all tenants, and what is inside.
#[derive(Debug)]
pub struct Queue<K> {
    capacity: u64,
    share: u64,
    used: u64,
    tenants: HashMap<K, Tenant>,
    /// What is inside: whose it is, and its units.
    inside: HashMap<Ticket, (K, u64)>,
    tickets: u64,
    turns: u64,
}

#[derive(Debug, Default)]
struct Tenant {
    /// Units inside.
    held: u64,
    line: VecDeque<(Ticket, u64)>,
    /// The turn at which it was let in last.
    last: u64,
    /// Turns of others since then, while it could have been let in if there had been room.
    passed: u32,
    /// It stands behind those that do not.
    behind: bool,
}

impl Tenant {
    /// What its first wants, if its share allows that.
    fn wish(&self, share: u64) -> Option<u64> {
        let (_, units) = *self.line.front()?;
        (self.held == 0 || self.held.saturating_add(units) <= share).then_some(units)
    }
}

impl<K: Eq + Hash + Clone> Queue<K> {
    /// `capacity` units for all, of which one tenant has at most `share`.
    pub fn new(capacity: u64, share: u64) -> Self {
        let capacity = capacity.max(1);
        Self {
            capacity,
            share: share.clamp(1, capacity),
            used: 0,
            tenants: HashMap::new(),
            inside: HashMap::new(),
            tickets: 0,
            turns: 0,
        }
    }

    /// How much is lent now.
    pub fn occupancy(&self) -> Occupancy {
        let waiting = self.tenants.values().map(|tenant| tenant.line.len() as u64).sum();
        Occupancy { capacity: self.capacity, used: self.used, waiting }
    }

    /// Puts something of so many units into its tenant's line. What is more than everything gets everything.
    pub fn enter(&mut self, tenant: K, units: u64) -> Ticket {
        self.line_up(tenant, units, false)
    }

    /// The same, behind all that enter so. A tenant either does or does not: who may do both has two names.
    pub fn enter_behind(&mut self, tenant: K, units: u64) -> Ticket {
        self.line_up(tenant, units, true)
    }

    fn line_up(&mut self, tenant: K, units: u64, behind: bool) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let units = units.clamp(1, self.capacity);
        let tenant = self.tenants.entry(tenant).or_default();
        tenant.behind = behind;
        tenant.line.push_back((ticket, units));
        ticket
    }

    /// Takes something out, from a line or from inside.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some((name, units)) = self.inside.remove(&ticket) {
            self.used -= units;
            if let Some(tenant) = self.tenants.get_mut(&name) {
                tenant.held -= units;
            }
        } else {
            for tenant in self.tenants.values_mut() {
                tenant.line.retain(|(waiting, _)| *waiting != ticket);
                // Who does not wait is not passed by.
                if tenant.line.is_empty() {
                    tenant.passed = 0;
                }
            }
        }
        self.tenants.retain(|_, tenant| tenant.held > 0 || !tenant.line.is_empty());
    }

    /// Lets in whatever can be, and returns it in the order of its turns.
    pub fn admit(&mut self) -> Vec<Ticket> {
        let mut admitted = Vec::new();
        while let Some(name) = self.next() {
            let Some(tenant) = self.tenants.get_mut(&name) else { break };
            let Some((ticket, units)) = tenant.line.pop_front() else { break };
            self.turns += 1;
            (tenant.last, tenant.passed) = (self.turns, 0);
            tenant.held += units;
            self.used += units;
            for (other, tenant) in &mut self.tenants {
                if *other != name && tenant.wish(self.share).is_some() {
                    tenant.passed += 1;
                }
            }
            self.inside.insert(ticket, (name, units));
            admitted.push(ticket);
        }
        admitted
    }

    /// The tenant whose turn it is, if what it wants fits.
    fn next(&self) -> Option<K> {
        let all = || {
            self.tenants.iter().filter_map(|(name, tenant)| Some((name, tenant, tenant.wish(self.share)?)))
        };
        let in_front = all().any(|(_, tenant, _)| !tenant.behind);
        let wishes = || all().filter(|(_, tenant, _)| !(in_front && tenant.behind));
        let fits = |units: u64| self.used.saturating_add(units) <= self.capacity;
        let overdue = wishes().filter(|(_, tenant, _)| tenant.passed >= PATIENCE);
        // Of several, the one that has waited for the most turns; `last` tells equals apart.
        if let Some((name, _, units)) =
            overdue.min_by_key(|(_, tenant, _)| (u32::MAX - tenant.passed, tenant.last, tenant.first()))
        {
            return fits(units).then(|| name.clone());
        }
        let fitting = wishes().filter(|(_, _, units)| fits(*units));
        fitting
            .min_by_key(|(_, tenant, _)| (tenant.held, tenant.last, tenant.first()))
            .map(|(name, ..)| name.clone())
    }

    /// Whether something would be let in if `ticket`, which is inside, left.
    pub fn is_wanted(&self, ticket: Ticket) -> bool {
        self.is_wanted_by(ticket, |_, _, _| true)
    }

    /// The same of something that does not stand behind, as `ticket` does.
    pub fn is_wanted_in_front(&self, ticket: Ticket) -> bool {
        let is_behind = |owner: &K| self.tenants.get(owner).is_some_and(|tenant| tenant.behind);
        self.is_wanted_by(ticket, |_, tenant, owner| !tenant.behind && is_behind(owner))
    }

    /// The same of something of another tenant.
    pub fn is_wanted_by_others(&self, ticket: Ticket) -> bool {
        self.is_wanted_by(ticket, |waiting, _, owner| waiting != owner)
    }

    fn is_wanted_by(&self, ticket: Ticket, counts: impl Fn(&K, &Tenant, &K) -> bool) -> bool {
        let Some((owner, given)) = self.inside.get(&ticket) else { return false };
        // Nobody makes room for those behind.
        let gives_way =
            |tenant: &Tenant| !tenant.behind || self.tenants.get(owner).is_some_and(|holder| holder.behind);
        let counted = |name: &K, tenant: &Tenant| gives_way(tenant) && counts(name, tenant, owner);
        self.tenants.iter().filter(|(name, tenant)| counted(name, tenant)).any(|(name, tenant)| {
            let Some((_, units)) = tenant.line.front() else { return false };
            let held = if name == owner { tenant.held - given } else { tenant.held };
            (held == 0 || held.saturating_add(*units) <= self.share)
                && (self.used - given).saturating_add(*units) <= self.capacity
        })
    }
}

impl Tenant {
    /// The first of its line, to tell tenants apart that never had a turn.
    fn first(&self) -> Option<Ticket> {
        self.line.front().map(|(ticket, _)| *ticket)
    }
}

#[cfg(test)]
mod tests;
