//! What the demonstration and the benchmark share: making images, running things, measuring them.

pub mod layout;
pub mod measure;
pub mod tarball;
pub mod walk;
