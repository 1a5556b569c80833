//! The node plugin: volumes, mounts, registry credentials and detected corruption.

pub mod corruption;
pub mod credential_providers;
pub mod mount;
pub mod service;
pub mod volume;
