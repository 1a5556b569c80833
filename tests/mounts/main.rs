//! The mounter within this process, on this machine's kernel. Needs root, and a build directory on a disk filesystem.
//!
//! A program of its own, because it counts what the whole process holds: descriptors, mounts, loop devices. Its tests
//! take turns (`support::bench`), and no other test may open or mount anything meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod lazy;
mod mount;
mod mount_life;
#[path = "../support/mod.rs"]
mod support;
