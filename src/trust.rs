//! Trust: whether an image may be mounted here, decided offline from signatures and a policy.
//!
//! [`signature`] verifies one signature against one [`signature::Expectation`]. A [`policy`] says what is expected of
//! which image, and compiles to such expectations. A [`PolicyEngine`] puts both together for the code that mounts.
//! Only [`collect`] fetches anything: it returns [`Claims`], which are unverified. Claims may be stored, and are
//! verified again before every mount.

mod admission;
pub mod collect;
mod engine;
mod examination;
mod memo;
mod memory;
pub mod metrics;
pub mod policy;
mod settings;
pub mod signature;
mod subject;
mod verifier;

pub use admission::{Admission, Hearing, Pods, PolicyEngine, PolicyRefusal};
pub use engine::SignaturePolicyEngine;
pub(crate) use examination::Examination;
pub use memory::ClaimMemory;
pub use settings::{PolicyMode, TrustSettings, VERIFIER_TIMEOUT, WithoutPolicy};
pub use subject::{Claims, Subject};
