//! composefs-csi: image-backed, read-only volumes for Kubernetes.
//!
//! The layers point downwards only: `main` → [`cli`] → [`app`] → the services of [`node`] and
//! [`controller`] → [`csi`] → [`volume`]. Both services stand on [`image`] → [`trust`] → [`oci`], none of which knows CSI,
//! Kubernetes or mounting. [`sys`] holds the system calls that no crate offers, [`metrics`], [`kind`] and
//! [`integrity`] are words that every layer uses.
//! `docs/ARCHITECTURE.md` has the picture; `tests/architecture.rs` keeps it true.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod csi;
pub mod durable_file;
pub mod image;
pub mod integrity;
pub mod kind;
pub mod metrics;
pub mod node;
pub mod oci;
pub mod sys;
pub mod trust;
pub mod volume;
