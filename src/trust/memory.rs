//! What this process holds of claims and of the documents that lead to them, counted byte by byte.
//!
//! Who can push to a repository decides how many claims it has, how large they are, and how slowly they come. So a
//! search for them holds bytes only as [`Held`], which a [`Share`] gives out: one share for each request, of which the
//! node has a few ([`ClaimMemory`]). A share is never waited for by somebody who has one, so that nobody waits for
//! ever, and one registry gets no more than half of them, so that a slow one cannot stop the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fair::{Gate, Pass};

/// How many requests search at once on a node.
const SHARES: usize = 6;
/// How many of them search in the same registry.
const SHARES_OF_ONE: usize = SHARES / 2;
/// What one request holds at most, in bytes: a manifest as it came (4 MiB) and as it is parsed, one claim, and those
/// that are kept.
pub(super) const SHARE_MAX: usize = 10 << 20;
/// After so many bytes freed memory is given back to the kernel.
const RETURNED: usize = 2 << 20;
/// What one request reads at most, in bytes.
const READ_MAX: usize = 32 << 20;

/// The memory of a node for searches of claims.
#[derive(Debug)]
pub struct ClaimMemory {
    /// Registries take turns.
    gate: Gate<String>,
    node: Arc<Account>,
}

/// Bytes of one request, or of all.
#[derive(Debug, Default)]
struct Account {
    held: AtomicUsize,
    peak: AtomicUsize,
    /// Bytes read that the allocator may still keep.
    read: AtomicUsize,
}

/// The share of one request.
#[derive(Debug)]
pub(super) struct Share {
    _pass: Pass<String>,
    accounts: [Arc<Account>; 2],
    read: usize,
}

/// A value that came from a registry, and what it takes. It is given back with the value.
#[derive(Debug)]
pub(super) struct Held<T> {
    value: T,
    charge: Charge,
}

#[derive(Debug)]
struct Charge {
    bytes: usize,
    accounts: [Arc<Account>; 2],
}

/// The request has used up its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent;

impl Default for ClaimMemory {
    fn default() -> Self {
        Self { gate: Gate::new(SHARES as u64, SHARES_OF_ONE as u64), node: Arc::default() }
    }
}

impl ClaimMemory {
    /// The most bytes that all requests may hold together.
    pub const MAX: usize = SHARES * SHARE_MAX;

    /// Waits for a share to search in `registry`.
    pub(super) async fn share(&self, registry: &str) -> Share {
        let pass = self.gate.enter(registry.to_owned(), 1).await;
        Share { _pass: pass, accounts: [Arc::default(), Arc::clone(&self.node)], read: 0 }
    }

    /// The most bytes that were held at once until now.
    pub fn peak(&self) -> usize {
        self.node.peak.load(Ordering::Relaxed)
    }

    /// The bytes that are held now.
    pub fn held(&self) -> usize {
        self.node.held.load(Ordering::Relaxed)
    }

    /// Whether so much has been read since the last time that it should be given back to the kernel.
    pub(crate) fn should_be_returned(&self) -> bool {
        let read = &self.node.read;
        read.load(Ordering::Relaxed) >= RETURNED && read.swap(0, Ordering::Relaxed) >= RETURNED
    }
}

impl Share {
    /// Sets `bytes` aside, before they are read.
    pub(super) fn reserve(&self, bytes: usize) -> Result<Held<()>, Spent> {
        let [own, node] = &self.accounts;
        if own.held.load(Ordering::Relaxed) + bytes > SHARE_MAX {
            return Err(Spent);
        }
        for account in [own, node] {
            let held = account.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
            account.peak.fetch_max(held, Ordering::Relaxed);
        }
        Ok(Held { value: (), charge: Charge { bytes, accounts: self.accounts.clone() } })
    }

    /// Counts what has been read, and says whether it may go on.
    pub(super) fn has_read(&mut self, bytes: usize) -> Result<(), Spent> {
        self.read = self.read.saturating_add(bytes);
        self.accounts[1].read.fetch_add(bytes, Ordering::Relaxed);
        if self.read > READ_MAX { Err(Spent) } else { Ok(()) }
    }
}

impl<T> Held<T> {
    /// What `change` makes of it, which takes `bytes`: at most as many as before, or they are set aside first.
    pub(super) fn mapped<U>(self, change: impl FnOnce(T) -> U, bytes: usize) -> Held<U> {
        let Self { value, mut charge } = self;
        charge.give_back(charge.bytes.saturating_sub(bytes));
        Held { value: change(value), charge }
    }

    /// What is held.
    pub(super) fn value(&self) -> &T {
        &self.value
    }

    /// Takes the value out of the account: it is kept with the image, or goes at once.
    pub(super) fn released(self) -> T {
        self.value
    }
}

impl Charge {
    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        for account in &self.accounts {
            account.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_is_given_back() {
        let memory = ClaimMemory::default();
        let mut share = memory.share("r.io").await;
        let room = share.reserve(SHARE_MAX).unwrap();
        assert_eq!(share.reserve(1).unwrap_err(), Spent);
        let less = room.mapped(|()| "text", 4);
        assert_eq!((memory.held(), memory.peak(), *less.value()), (4, SHARE_MAX, "text"));
        assert_eq!(less.released(), "text");
        assert_eq!(memory.held(), 0);
        share.has_read(READ_MAX).unwrap();
        assert_eq!(share.has_read(1), Err(Spent));
    }

    #[tokio::test]
    async fn one_registry_leaves_room_for_others() {
        let memory = ClaimMemory::default();
        let mut slow = Vec::new();
        for _ in 0..SHARES_OF_ONE {
            slow.push(memory.share("slow.example").await);
        }
        assert!(memory.share("slow.example").now_or_never().is_none());
        let other = memory.share("r.io").now_or_never();
        assert!(other.is_some());
        slow.pop();
        assert!(memory.share("slow.example").now_or_never().is_some());
        drop((slow, other));
        let mut all = Vec::new();
        for number in 0..SHARES {
            all.push(memory.share(&format!("r{number}.io")).await);
        }
        assert!(memory.share("r.io").now_or_never().is_none());
    }
}
