//! The places of layers that stand aside. When they are full, one must go: not the newest, but the slowest of the
//! tenant that has the most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Tenant;

/// The places.
#[derive(Debug, Clone)]
pub(super) struct Aside(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    capacity: usize,
    taken: HashMap<u64, Taken>,
    next: u64,
}

#[derive(Debug)]
struct Taken {
    tenant: Tenant,
    /// Bytes per second that its registry could send.
    rate: u64,
    given_up: CancellationToken,
}

/// A place that is taken. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    aside: Aside,
    number: u64,
    /// Cancelled when the layer has to go.
    pub(super) given_up: CancellationToken,
}

impl Aside {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Places { capacity, taken: HashMap::new(), next: 0 })))
    }

    /// Takes a place, and gives up what is too much.
    pub(super) fn take(&self, tenant: Tenant, rate: u64) -> Place {
        let (mut places, given_up) = (self.places(), CancellationToken::new());
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, Taken { tenant, rate, given_up: given_up.clone() });
        places.give_up_surplus();
        Place { aside: self.clone(), number, given_up }
    }

    /// How many places there are, and how many are taken.
    pub(super) fn taken(&self) -> (usize, usize) {
        let places = self.places();
        (places.capacity, places.taken.len())
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // No change to the map can panic half-way, so a poisoned one is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn give_up_surplus(&mut self) {
        while self.taken.len() > self.capacity {
            let mut counts: HashMap<&Tenant, usize> = HashMap::new();
            for taken in self.taken.values() {
                *counts.entry(&taken.tenant).or_default() += 1;
            }
            let count = |taken: &Taken| counts.get(&taken.tenant).copied().unwrap_or(0);
            let worst = self
                .taken
                .iter()
                .max_by_key(|(number, taken)| (count(taken), std::cmp::Reverse(taken.rate), **number));
            let Some(number) = worst.map(|(number, _)| *number) else { return };
            if let Some(taken) = self.taken.remove(&number) {
                taken.given_up.cancel();
            }
        }
    }
}

impl Place {
    /// Notes what its registry can send.
    pub(super) fn note_rate(&self, rate: u64) {
        if let Some(taken) = self.aside.places().taken.get_mut(&self.number) {
            taken.rate = rate;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.aside.places().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::store::AccessRecord;

    fn tenant(host: &str) -> Tenant {
        (host.to_owned(), AccessRecord::Anonymous)
    }

    #[test]
    fn the_slowest_of_the_tenant_with_the_most_places_has_to_go() {
        let aside = Aside::new(3);
        let rates = [("a", 50), ("a", 60), ("b", 1)];
        let places: Vec<_> = rates.map(|(host, rate)| aside.take(tenant(host), rate)).into();
        let gone =
            |places: &[Place]| places.iter().map(|place| place.given_up.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(gone(&places), [false; 3]);
        places[1].note_rate(40);
        let newest = aside.take(tenant("c"), 0);
        assert_eq!(gone(&places), [false, true, false], "not the slow one of a tenant with one place");
        assert!(!newest.given_up.is_cancelled());
        let last = aside.take(tenant("d"), 2);
        assert!(newest.given_up.is_cancelled(), "of equals the slowest");
        drop(places);
        drop(last);
        assert_eq!(aside.places().taken.len(), 0);
    }
}
