//! What tests stand on: fakes, real registries and tools, makers of images, the program as a node plugin.
//! Each tier's `main.rs` includes all of it once.

#![allow(dead_code, reason = "a tier uses its part; the compiler sees one tier at a time")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

pub mod again;
pub mod archive;
pub mod artifacts;
pub mod bench;
pub mod chart;
pub mod chunked;
pub mod container;
pub mod csi;
pub mod dialects;
pub mod disk;
pub mod driver;
pub mod first_opens;
pub mod foreign;
pub mod golden;
pub mod http;
pub mod images;
pub mod impostor;
pub mod late;
pub mod layout;
pub mod lazy_images;
pub mod mount;
pub mod objects;
pub mod own;
pub mod pages;
pub mod pod_users;
pub mod process;
pub mod program;
pub mod proxy;
pub mod pulling;
pub mod registry;
pub mod runtimes;
pub mod shelf;
pub mod signal;
pub mod sigstore;
pub mod tools;
pub mod unpacked;
pub mod wait;
