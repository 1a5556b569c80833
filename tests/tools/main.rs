//! Other people's programs as oracle: what cosign, helm, mkcomposefs, notation, Prometheus, tar, umoci and real registries
//! say is right. Needs root (owners, devices, mounts) and what `make setup` installs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod artifact_writers;
mod artifacts;
mod canonical;
mod chart;
mod chunked;
mod composefs;
mod faithful;
mod fold;
mod golden;
mod grpc;
mod kserve;
mod manifests;
mod monitoring;
mod notation;
mod policy;
mod push;
mod registry;
mod runc;
mod signatures;
#[path = "../support/mod.rs"]
mod support;
mod tar_dialects;
