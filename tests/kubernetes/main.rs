//! What the program does with the API server, which is scripted; registry, mounts and kubelet's credential providers
//! are real. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod api;
mod credentials;
mod events;
mod objects;

#[path = "../support"]
mod support {
    pub mod archive;
    pub mod csi;
    pub mod driver;
    pub mod http;
    pub mod images;
    pub mod impostor;
    pub mod proxy;
    pub mod registry;
    pub mod tools;
}
