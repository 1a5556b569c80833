//! How much of what is lent in turns is lent: what an operator looks at where pulls wait.

use serde::{Deserialize, Serialize};

use crate::fair::Occupancy;

/// What all pulls of a node share, and how much of it is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Busy {
    /// Slots for layers.
    pub layers: Occupied,
    /// Places of slow layers that have made room for others. Nothing waits for these.
    pub aside: Occupied,
    /// MiB of memory for builds.
    pub build_memory: Occupied,
}

/// Something of which there is so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Occupied {
    /// What there is.
    pub total: u64,
    /// What is in use.
    pub used: u64,
    /// How many wait for some of it.
    pub waiting: u64,
}

impl From<Occupancy> for Occupied {
    fn from(of: Occupancy) -> Self {
        Self { total: of.capacity, used: of.used, waiting: of.waiting }
    }
}
