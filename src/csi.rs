//! The Container Storage Interface: the wire, and nothing behind it.
//!
//! [`proto`] is what `proto/csi/csi.proto` declares; [`status`] is the only place where a
//! [`Kind`](crate::kind::Kind) becomes a gRPC code; [`server`] serves on a Unix socket; [`authority`] lets old
//! kubelets in; [`span`] opens one
//! span per call and logs how it ended; [`capability`] reads what both services are asked for in the same
//! words. [`identity`] is the one service that every process answers.
//!
//! No message that carries secrets has a `Debug` (see `build.rs`), and none must get one.

pub mod authority;
pub mod capability;
pub mod deadline;
pub mod endpoint;
pub mod identity;
pub mod metrics;
pub mod server;
pub mod span;
pub mod status;

/// Messages, clients and servers of CSI 1.12, generated.
#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("csi.v1");
}

#[cfg(test)]
mod proto_tests;
