//! Many ranges of a layer: several requests at a time, their bytes in order.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::memory::Room;
use super::ranges::Ranges;
use super::requests::{Arrived, Connections, Requests};
use super::words::Stop;
use crate::image::chunked::{Part, Run};
use crate::pull::turns::Turn;

/// Bytes of a layer that are requested or held at a time, where that is more than one request.
const WINDOW: u64 = 4 << 20;

impl Ranges<'_> {
    /// Sends the ranges on in their order, up to `at_once` requests at a time. Ends early where nobody wants them.
    ///
    /// # Errors
    /// As [`Ranges::read`].
    pub(super) async fn feed(
        &self,
        runs: Vec<Run>,
        at_once: usize,
        sender: mpsc::Sender<Part>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Stop> {
        let connections = Connections::default();
        let mut requests = Requests::new(self, &connections);
        let (mut runs, mut ready) = (runs.into_iter().peekable(), VecDeque::<Arrived>::new());
        let mut held = 0;
        loop {
            requests.set_aside(turn.is_aside());
            let most = if turn.is_aside() { 1 } else { at_once.max(1) };
            while requests.len() < most
                && let Some(run) = runs.peek()
                && let Some(room) = self.room(run.end - run.start, held)
            {
                held += run.end - run.start;
                requests.add(run.clone(), room);
                runs.next();
            }
            let arrived = if ready.is_empty() {
                let next = turn.during(requests.next()).await.map_err(|gave_way| self.gave_way(gave_way))?;
                // Nothing is requested, nothing is held: that was all.
                let Some(arrived) = next else { return Ok(()) };
                arrived?
            } else {
                tokio::select! {
                    biased;
                    place = sender.reserve() => {
                        let (Ok(place), Some(arrived)) = (place, ready.pop_front()) else { return Ok(()) };
                        held -= arrived.part.bytes.len() as u64;
                        place.send(arrived.part);
                        continue;
                    }
                    Some(arrived) = requests.next() => arrived?,
                }
            };
            // Before anything is waited for: others may have the connections.
            requests.set_aside(turn.is_aside());
            self.took(&arrived.part, turn).await?;
            ready.push_back(arrived);
        }
    }

    /// Memory for a request of so many bytes, if there is some, where the layer holds `held` already.
    fn room(&self, length: u64, held: u64) -> Option<Room> {
        match held {
            // A layer always goes on: one request is its own.
            0 => Some(None),
            _ if held + length > WINDOW => None,
            _ => self.lent.memory(length).map(Some),
        }
    }
}

#[cfg(test)]
mod tests;
