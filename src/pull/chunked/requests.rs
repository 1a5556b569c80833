//! The requests for a layer's ranges: several under way at a time, finished in any order, taken in theirs.
//!
//! One of them has the connection that came with the layer's turn. Others are lent connections from the node's budget,
//! and give them back where another registry or credential needs them, where the registry does not want them, and where
//! the layer stands aside. What a request has received it keeps, and goes on from there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use super::memory::Room;
use super::ranges::Ranges;
use super::request::Request;
use super::words::Stop;
use crate::image::chunked::{Part, Run};
use crate::pull::extra::Extra;

/// The requests of one layer that are under way.
pub(super) struct Requests<'a> {
    ranges: &'a Ranges<'a>,
    connections: &'a Connections,
    /// Whether the layer stands aside: it has its one connection then.
    aside: bool,
    under_way: FuturesOrdered<BoxFuture<'a, Result<(), Stop>>>,
    /// The same ones in the same order, and the memory of each.
    asked: VecDeque<(Arc<Request>, Room)>,
}

/// The connections that a layer may have.
pub(super) struct Connections {
    /// The one that came with its turn.
    own: Semaphore,
    /// Whether the registry did not want others.
    only_own: AtomicBool,
}

/// A range that has come, and the memory that it takes until it is passed on.
pub(super) struct Arrived {
    pub part: Part,
    pub _room: Room,
}

/// What lets a request have a connection.
enum Right<'a> {
    /// The layer's own. It is never closed, so this is no error.
    Own {
        _permit: Result<SemaphorePermit<'a>, AcquireError>,
    },
    Extra(Extra),
}

impl<'a> Requests<'a> {
    pub(super) fn new(ranges: &'a Ranges<'a>, connections: &'a Connections) -> Self {
        let (under_way, asked) = (FuturesOrdered::new(), VecDeque::new());
        Self { ranges, connections, aside: false, under_way, asked }
    }

    pub(super) fn len(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn add(&mut self, run: Run, room: Room) {
        let request = Arc::new(Request::new(run));
        self.under_way.push_back(self.fetch(&request));
        self.asked.push_back((request, room));
    }

    /// Says whether the layer stands aside. Where that changes, all connections are closed, and so given back; the layer's
    /// own opens again.
    pub(super) fn set_aside(&mut self, aside: bool) {
        if aside != self.aside {
            self.aside = aside;
            self.under_way = self.asked.iter().map(|(request, _)| self.fetch(request)).collect();
        }
    }

    /// The next range in the order in which they were added; `None` if none is under way. Dropped, the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> Option<Result<Arrived, Stop>> {
        let ended = self.under_way.next().await?;
        let (request, room) = self.asked.pop_front()?;
        Some(ended.map(|()| Arrived { part: request.take(), _room: room }))
    }

    fn fetch(&self, request: &Arc<Request>) -> BoxFuture<'a, Result<(), Stop>> {
        let (ranges, connections, extras) = (self.ranges, self.connections, !self.aside);
        let request = Arc::clone(request);
        async move { connections.fetch(ranges, &request, extras).await }.boxed()
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self { own: Semaphore::new(1), only_own: AtomicBool::new(false) }
    }
}

impl Connections {
    /// Fetches what is missing of a range, by extra connections as well where `extras` says so.
    async fn fetch(&self, ranges: &Ranges<'_>, request: &Request, extras: bool) -> Result<(), Stop> {
        // It may have ended before the layer's connections were closed.
        while !request.missing().is_empty() {
            let right = self.right(ranges, extras).await;
            let received = tokio::select! {
                biased;
                received = ranges.receive(request, right.is_extra()) => received,
                () = right.must_give_way() => continue,
            };
            match received {
                // One connection less is no failure: some registries limit them.
                Err(Stop::Pull(error)) if right.is_extra() => {
                    tracing::debug!(blob = %ranges.blob.digest, %error, "one connection for the layer from now on");
                    self.only_own.store(true, Ordering::Release);
                }
                ended => return ended,
            }
        }
        Ok(())
    }

    /// Waits for a connection. Requests get the layer's own in the order in which they ask, so that the first one, which
    /// all others wait for, never waits for what is lent.
    async fn right(&self, ranges: &Ranges<'_>, extras: bool) -> Right<'_> {
        let extra = async {
            let pass = ranges.lent.connection(ranges.source).await;
            match self.only_own.load(Ordering::Acquire) {
                false => Extra::new(pass),
                // Nothing lent is of use any more.
                true => {
                    drop(pass);
                    std::future::pending().await
                }
            }
        };
        tokio::select! {
            biased;
            permit = self.own.acquire() => Right::Own { _permit: permit },
            extra = extra, if extras => Right::Extra(extra),
        }
    }
}

impl Right<'_> {
    fn is_extra(&self) -> bool {
        matches!(self, Self::Extra(_))
    }

    async fn must_give_way(&self) {
        match self {
            Self::Extra(extra) => extra.must_give_way().await,
            Self::Own { .. } => std::future::pending().await,
        }
    }
}
