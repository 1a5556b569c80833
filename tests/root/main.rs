//! The program itself as a node plugin, with real mounts on this machine's kernel. Needs root, and Debian's
//! docker-registry and skopeo, from which it pulls. What is right is written in the tests.
//!
//! Each test has directories, registry and plugin of its own; they share the kernel's mount table and its log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod admission;
mod artifact_pulls;
mod artifacts;
mod builds;
mod chart_mounts;
mod choices;
mod chunked;
mod claims;
mod cli;
mod collection;
mod damage;
mod driver;
mod follow;
mod full;
mod hardening;
mod holds;
mod hostile;
mod key_place;
mod kubernetes;
mod layers;
mod lazy;
mod levels;
mod many;
mod mirrors;
mod object_source;
mod oddities;
mod outright;
mod partial;
mod powers;
mod propagation;
mod pulls;
mod push;
mod read_ahead;
mod requests;
mod rotation;
mod seal;
mod slow_registries;
mod spellings;
mod state_directory;
mod status;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod tenants;
mod user_namespaces;
mod waiting;
mod writable;
