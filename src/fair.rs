//! Fair turns at what a node has little of: slots for layers, requests for documents, memory for builds.
//!
//! Whoever wants some enters a [`Gate`] as a tenant, and holds a [`Pass`] while it is inside. The order is that of
//! [`Queue`], which is pure: tenants take turns, none holds more than its share, and none is passed by for ever
//! ([ADR 0020](../docs/adr/0020-turns.md)).

mod gate;
mod queue;

pub use gate::{Gate, Pass};
pub use queue::{Occupancy, Queue, Ticket};
