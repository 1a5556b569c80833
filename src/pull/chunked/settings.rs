//! What an operator sets.

pub use crate::image::chunked::PlanRules;

/// How layers are fetched of which files are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialPulls {
    /// Whose files are used.
    pub from: ReuseFrom,
    /// Which ranges are asked for.
    pub rules: PlanRules,
    /// Requests of a layer at the same time.
    pub connections: usize,
}

/// Of which layers a pull uses files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReuseFrom {
    /// Of none: layers are fetched whole.
    Nothing,
    /// Of those that the caller may have in place of a fetch.
    Own,
    /// Of all that are here: bytes on the wire then tell every tenant which files others have.
    All,
}

impl Default for PartialPulls {
    fn default() -> Self {
        Self { from: ReuseFrom::Own, rules: PlanRules::default(), connections: 16 }
    }
}
