//! The controller: volumes for PersistentVolumeClaims, each pinned to the digest that its tag named.
//!
//! Nothing is allocated anywhere, so a volume is no more than its record ([`states`]). The controller never
//! pulls and never mounts; it needs no privileges.

pub mod provision;
pub mod service;
pub mod states;
