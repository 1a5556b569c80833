//! What an owner says about its metrics.

/// The name and the meaning of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Its name without the namespace. It ends with the unit, and with `_total` if the metric only grows.
    pub name: &'static str,
    /// What it counts or measures: one sentence without a full stop.
    pub help: &'static str,
}

impl Description {
    /// A metric called `composefs_csi_<name>`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help }
    }
}
