//! Who may have what is in the store: the rule of KEP-2535 for volumes, and for layers.
//!
//! A node's store is shared by tenants that need not trust each other. Bytes that one tenant could fetch are given to
//! another only if [`AccessRule`] finds a reason in what is on record. Otherwise the registry is asked with the other
//! tenant's own credentials, or the bytes are fetched again. Nothing here does I/O: [`crate::image::store`] has the
//! records, and [`crate::pull`] asks.
//!
//! Two things make the rule hold (`docs/adr/0011-proof-of-access.md`):
//! * A registry is believed only about images that came from it. A registry can claim to have any manifest. To have
//!   the layers' bytes as well, its owner must have been able to read them.
//! * The right to read is a fact about an *origin* (registry and repository) and a credential. What is known about one
//!   origin says nothing about another.

mod origin;
mod pattern;
mod rule;

pub use origin::Origin;
pub use pattern::{ImagePattern, PatternError};
pub use rule::{AccessRule, Verification};
pub(crate) use rule::{ImageFacts, LayerFacts};
