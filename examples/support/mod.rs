//! Code that the demonstration and the benchmark share: making images, running and measuring programs.
#![allow(dead_code, reason = "each of the two uses its part")]

pub mod cgroup;
pub mod frames;
pub mod layout;
pub mod measure;
pub mod mounts;
pub mod node;
#[path = "../../tests/support/pages.rs"]
pub mod pages;
pub mod tarball;
pub mod walk;
