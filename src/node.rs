//! The node plugin: volumes and mounts.

pub mod corruption;
pub mod credential_providers;
pub mod mount;
pub mod service;
pub mod volume;
