//! composefs-csi: image-backed, read-only volumes for Kubernetes.
//!
//! Imports point downwards only: `main` → [`cli`] → [`app`] → the services of [`node`] and [`controller`] → [`csi`]
//! → [`volume`] → [`pull`] → [`image`] and [`trust`] → [`oci`]. The last four know nothing of CSI, Kubernetes or mounting,
//! nor does [`push`], which [`cli`] uses beside [`app`]. All
//! layers may use [`metrics`], [`kind`], [`integrity`], [`text`], [`units`], [`duration`], [`durable_file`], [`fair`],
//! [`program`] and [`sys`], the system calls that no crate offers. `docs/ARCHITECTURE.md` shows the layers;
//! `tests/pure/architecture.rs` checks them.

mod app;
pub mod cli;
mod cluster;
pub mod controller;
pub mod csi;
pub mod durable_file;
mod duration;
mod fair;
pub mod image;
pub mod integrity;
pub mod kind;
mod metrics;
pub mod node;
pub mod oci;
pub mod prefetch;
mod program;
pub mod pull;
pub mod push;
pub mod sys;
pub mod text;
pub mod trust;
mod units;
pub mod volume;

#[doc(inline)]
pub use app::lazy::{Coming, End};
#[doc(inline)]
pub use app::prefetch::prefetch_alone;
