//! What the plugin tells of itself: metrics, traces, the log's level. The real program, a real registry, real mounts.
//! Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod metrics;
mod page;
mod traces;

#[path = "../support"]
mod support {
    pub mod archive;
    pub mod csi;
    pub mod driver;
    pub mod http;
    pub mod images;
    pub mod proxy;
    pub mod registry;
    pub mod tools;
}
