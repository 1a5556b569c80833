//! Who may have what is in the store: the rule of KEP-2535 for volumes, and for layers.
//!
//! A node's store is shared by tenants that need not trust each other. Bytes that one of them could fetch are
//! given to another only where [`Rule`] finds a reason in what is on record; otherwise the registry is asked with
//! the other's own credentials, or the bytes are fetched again. Nothing here does I/O: the records are
//! [`crate::image::store`]'s, and asking is [`crate::image::pull`]'s.
//!
//! Two things make the rule hold (`docs/adr/0011-proof-of-access.md`):
//! * A registry is believed only about images that came from it. Whoever runs a registry can claim to have any
//!   manifest; to have the layers' bytes as well, he must have been able to read them.
//! * Being allowed to read is a fact about a *place* (registry and repository) and a credential. What is known
//!   about one origin says nothing about another.

mod origin;
mod pattern;
mod rule;

pub use origin::Origin;
pub use pattern::{ImagePattern, PatternError};
pub use rule::{Given, ImageFacts, LayerFacts, Rule, TTL, Verification};
