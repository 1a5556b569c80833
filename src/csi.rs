//! The Container Storage Interface: the wire protocol only.
//!
//! [`proto`] is generated from `proto/csi/csi.proto`. [`status`] is the only place that maps a
//! [`Kind`](crate::kind::Kind) to a gRPC code. [`server`] serves on a Unix socket, and [`authority`] makes it accept
//! old kubelets. [`span`] opens one span per call and logs how it ended. [`capability`] parses volume capabilities for
//! both services. [`identity`] is the service that every process serves, [`readiness`] what its Probe answers.
//!
//! Messages with secrets have no `Debug` (see `build.rs`), and must not get one.

mod authority;
pub(crate) mod capability;
pub(crate) mod deadline;
pub mod endpoint;
pub mod identity;
mod metrics;
pub mod readiness;
pub mod server;
pub(crate) mod span;
pub(crate) mod status;

/// Generated messages, clients and servers of CSI 1.12.
#[allow(missing_docs, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod proto {
    tonic::include_proto!("csi.v1");
}

#[cfg(test)]
mod proto_tests;
