//! Access to stored images: the rule of KEP-2535 for volumes, and for layers.
//!
//! Tenants that need not trust each other share a node's store. A tenant gets bytes that another tenant has
//! fetched only if [`AccessRule`] finds a reason on record. Otherwise the registry is asked with the tenant's own
//! credentials, or the bytes are fetched again. Nothing here does I/O: the store keeps the records, and the pull
//! asks the registry.
//!
//! The rule rests on two principles (`docs/adr/0011-proof-of-access.md`):
//! * A registry's answer counts only for images that came from it. The operator of a registry can claim to have
//!   any manifest. To have the layers' bytes as well, they must have been able to read them.
//! * The right to read belongs to an *origin* (registry and repository) and a credential. A right at one origin
//!   says nothing about another.

mod origin;
mod pattern;
mod rule;

pub use origin::Origin;
pub use pattern::{ImagePattern, PatternError};
pub use rule::{AccessRule, Verification};
pub(in crate::image) use rule::{Given, ImageFacts, LayerFacts};
