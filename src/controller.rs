//! The controller: provisions volumes for PersistentVolumeClaims, each pinned to the digest that its tag named.
//!
//! It allocates nothing, so a volume is only its record ([`states`]). The controller neither pulls nor mounts, and needs
//! no privileges.

pub mod provision;
pub mod service;
pub mod states;
