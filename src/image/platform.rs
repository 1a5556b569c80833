//! Platforms: which manifest of an index a node wants.
