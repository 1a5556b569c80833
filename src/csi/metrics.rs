//! Calls counted: which one, how it was answered, how long it took.

use std::time::Instant;

use tonic::Code;

use crate::metrics::{Description, Durations, Family, Instruments, Label};

const RPC_DURATION: Description = Description::new(
    "rpc_duration_seconds",
    "CSI calls by how they were answered; Cancelled where the caller was gone before the answer",
);
/// From a record that is read to a pull that is waited for.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 120.0];

/// The metrics of a CSI server. Clones count into the same.
#[derive(Debug, Clone)]
pub struct RpcMetrics(Durations<(Rpc, Answer)>);

impl Default for RpcMetrics {
    fn default() -> Self {
        Self(Durations::new(RPC_DURATION, &BUCKETS))
    }
}

impl Instruments for RpcMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.0]
    }
}

impl RpcMetrics {
    /// Times one call.
    pub(super) fn start(&self, rpc: Rpc) -> Call {
        Call { metrics: self.clone(), rpc, begun: Instant::now(), code: Code::Cancelled }
    }

    /// How many calls were answered so.
    pub fn count(&self, rpc: Rpc, code: Code) -> u64 {
        self.0.count((rpc, Answer(code)))
    }
}

/// A call under way. Dropped without an answer, it was cancelled.
pub(super) struct Call {
    metrics: RpcMetrics,
    rpc: Rpc,
    begun: Instant,
    code: Code,
}

impl Call {
    pub(super) fn answered(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.0.observe((self.rpc, Answer(self.code)), self.begun.elapsed());
    }
}

/// A call by its name in the specification; whatever else is called counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc(&'static str);

impl Rpc {
    /// Of the last part of a request's path.
    pub fn named(name: &str) -> Self {
        Self::ALL.iter().find(|rpc| rpc.0 == name).copied().unwrap_or(Self("other"))
    }
}

impl Label for Rpc {
    const NAME: &'static str = "rpc";
    const ALL: &'static [Self] = &[
        Self("CreateVolume"),
        Self("DeleteVolume"),
        Self("ValidateVolumeCapabilities"),
        Self("ListVolumes"),
        Self("GetCapacity"),
        Self("ControllerGetCapabilities"),
        Self("GetPluginInfo"),
        Self("GetPluginCapabilities"),
        Self("Probe"),
        Self("NodeStageVolume"),
        Self("NodeUnstageVolume"),
        Self("NodePublishVolume"),
        Self("NodeUnpublishVolume"),
        Self("NodeGetVolumeStats"),
        Self("NodeGetCapabilities"),
        Self("NodeGetInfo"),
        Self("other"),
    ];

    fn value(self) -> &'static str {
        self.0
    }
}

/// A gRPC code, spelled as Go and the CSI sidecars do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer(Code);

impl Label for Answer {
    const NAME: &'static str = "code";
    const ALL: &'static [Self] = &[
        Self(Code::Ok),
        Self(Code::Cancelled),
        Self(Code::Unknown),
        Self(Code::InvalidArgument),
        Self(Code::DeadlineExceeded),
        Self(Code::NotFound),
        Self(Code::AlreadyExists),
        Self(Code::PermissionDenied),
        Self(Code::ResourceExhausted),
        Self(Code::FailedPrecondition),
        Self(Code::Aborted),
        Self(Code::OutOfRange),
        Self(Code::Unimplemented),
        Self(Code::Internal),
        Self(Code::Unavailable),
        Self(Code::DataLoss),
        Self(Code::Unauthenticated),
    ];

    fn value(self) -> &'static str {
        match self.0 {
            Code::Ok => "OK",
            Code::Cancelled => "Cancelled",
            Code::Unknown => "Unknown",
            Code::InvalidArgument => "InvalidArgument",
            Code::DeadlineExceeded => "DeadlineExceeded",
            Code::NotFound => "NotFound",
            Code::AlreadyExists => "AlreadyExists",
            Code::PermissionDenied => "PermissionDenied",
            Code::ResourceExhausted => "ResourceExhausted",
            Code::FailedPrecondition => "FailedPrecondition",
            Code::Aborted => "Aborted",
            Code::OutOfRange => "OutOfRange",
            Code::Unimplemented => "Unimplemented",
            Code::Internal => "Internal",
            Code::Unavailable => "Unavailable",
            Code::DataLoss => "DataLoss",
            Code::Unauthenticated => "Unauthenticated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name_and_answer() {
        let metrics = RpcMetrics::default();
        let rpc = Rpc::named("NodePublishVolume");
        metrics.start(rpc).answered(Code::Aborted);
        drop(metrics.start(rpc));
        drop(metrics.start(Rpc::named("../../etc/passwd")));
        assert_eq!((metrics.count(rpc, Code::Aborted), metrics.count(rpc, Code::Cancelled)), (1, 1));
        assert_eq!(metrics.count(Rpc("other"), Code::Cancelled), 1);
    }
}
