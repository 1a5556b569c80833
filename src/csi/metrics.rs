//! Metrics of calls: name, code and duration.

use std::time::Instant;

use tonic::Code;

use crate::metrics::{Description, Durations, Family, Instruments, Label};

const RPC_DURATION: Description = Description::new(
    "rpc_duration_seconds",
    "CSI calls by how they were answered; Cancelled where the caller was gone before the answer",
);
/// From the read of a record (1 ms) to a wait for a pull (up to 120 s).
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 120.0];

/// The metrics of a CSI server. Clones share the counters.
#[derive(Debug, Clone)]
pub(crate) struct RpcMetrics(Durations<(Rpc, AnswerCode)>);

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
    /// Starts the timing of one call.
    pub(super) fn start(&self, rpc: Rpc) -> CallTimer {
        CallTimer { metrics: self.clone(), rpc, begun: Instant::now(), code: Code::Cancelled }
    }

    /// The number of calls of `rpc` that were answered with `code`.
    #[cfg(test)]
    pub fn count(&self, rpc: Rpc, code: Code) -> u64 {
        self.0.count((rpc, AnswerCode(code)))
    }
}

/// A running call. If it is dropped without an answer, it counts as cancelled.
pub(super) struct CallTimer {
    metrics: RpcMetrics,
    rpc: Rpc,
    begun: Instant,
    code: Code,
}

impl CallTimer {
    pub(super) fn answered(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        self.metrics.0.observe((self.rpc, AnswerCode(self.code)), self.begun.elapsed());
    }
}

/// A call by its name in the specification; unknown names all count as `other`, so that callers cannot add labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rpc(&'static str);

impl Rpc {
    /// From the last part of a request's path.
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

/// A gRPC code, spelled as in Go and the CSI sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AnswerCode(Code);

impl Label for AnswerCode {
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
