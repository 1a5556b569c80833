//! The node plugin: volumes, mounts, opens that wait, registry credentials, its state directory and detected corruption.

pub mod corruption;
pub mod credential_providers;
pub mod fuse;
pub mod mount;
pub mod prefetch;
pub mod service;
pub mod state_directory;
pub mod volume;
