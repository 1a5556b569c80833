//! The controller: provisions volumes for PersistentVolumeClaims, each pinned to the digest that its tag named.
//!
//! It also sums up what nodes do for prefetches ([`prefetch`]).
//!
//! It allocates nothing, so a volume is only its record ([`states`]). The controller neither pulls nor mounts, and needs
//! no privileges.

pub(crate) mod prefetch;
pub mod provision;
pub mod service;
pub mod states;
