//! The node plugin: volumes and mounts.

pub mod damage;
pub mod keychain;
pub mod mount;
pub mod service;
pub mod volume;
