//! The composefs image of a tree; the only user of the `composefs` crate.
