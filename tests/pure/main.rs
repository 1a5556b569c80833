//! Tests that need nothing but the sources: no root, no mount, no program besides cargo's. Fakes stand in for images
//! and mounts; the store is real, in temporary directories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod architecture;
mod circles;
mod controller;
mod modules;
mod node;
mod operations;
mod pages;
mod partial;
mod readme;
mod store;
#[path = "../support/mod.rs"]
mod support;
