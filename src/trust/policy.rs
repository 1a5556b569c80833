//! Policies: what is expected of which image, in the format of containers-policy.json(5).
//!
//! Parsing ([`Policy::parse`]) is strict and pure. Anything unknown, malformed or given twice makes the whole policy
//! unusable, and an unusable policy admits nothing. Judging ([`decide`]) is pure too: from requirements, an image and
//! claims it makes one explained outcome for each requirement. [`Policies`] handles the files: which one governs, and
//! whether it has changed.
//!
//! Four types of requirements are extensions of this project, and other tools refuse files that contain them:
//! `sigstoreBundle` (signatures in the bundle format, by keys or by identities under a trusted root), `anyOf`
//! (alternatives), `warnOnly` (signatures that are missing or wrong only warn) and `composefs` (properties of the
//! mount).

mod compile;
pub mod decide;
mod error;
mod hearing;
mod identity;
mod json;
mod parse;
mod policies;
mod reasons;
mod requirement;
mod rule;
mod scope;
mod shape;

pub use error::PolicyError;
pub(super) use hearing::PolicyHearing;
pub(super) use policies::{Governing, Policies};
pub use rule::{Policy, PolicyRule};

#[cfg(test)]
mod tests;
