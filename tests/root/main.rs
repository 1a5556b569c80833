//! The program itself as a node plugin, with real mounts on this machine's kernel. Needs root, and Debian's
//! docker-registry and skopeo, from which it pulls. What is right is written in the tests.
//!
//! Each test has directories, registry and plugin of its own; they share the kernel's mount table and its log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod admission;
mod cli;
mod collection;
mod damage;
mod driver;
mod hardening;
mod hostile;
mod kubernetes;
mod levels;
mod propagation;
mod requests;
mod rotation;
mod seal;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod tenants;
