//! The Node service: parses requests into types, and maps errors to gRPC codes. The work is done by
//! [`volume`](super::volume).

mod decode;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tonic::{Request, Response, Status, async_trait};
use tracing::Span;

use self::decode::{RawVolumeRequest, volume_id};
use super::volume::statistics::Statistics;
use super::volume::target::TargetPath;
use super::volume::{VolumeError, Volumes, unmount_without_records};
use crate::csi::deadline::time_to_answer;
use crate::csi::proto::node_service_capability::{Rpc, Type, rpc};
use crate::csi::proto::volume_usage::Unit;
use crate::csi::proto::{
    NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest, NodeStageVolumeResponse,
    NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse, VolumeCondition, VolumeUsage, node_server,
};
use crate::csi::readiness::Readiness;
use crate::csi::status::status;
use crate::kind::Kind;

/// Settings of the node service.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The node's name in Kubernetes.
    pub node_id: String,
    /// The kubelet's directory; targets must be below it.
    pub kubelet_dir: PathBuf,
    /// How long a call waits for a pull, unless its own deadline is shorter.
    pub pull_wait: Duration,
}

/// The Node service of one node. Clones share the volumes.
#[derive(Debug, Clone)]
pub struct NodeService {
    settings: NodeSettings,
    ready: Readiness,
    volumes: Arc<OnceLock<Volumes>>,
    /// Set if it may take long until there are volumes, or for ever.
    stateless: Arc<AtomicBool>,
}

/// The optional RPCs that the node supports. NodeExpandVolume is not among them: an image does not grow.
const CAPABILITIES: [rpc::Type; 4] = [
    rpc::Type::StageUnstageVolume,
    rpc::Type::GetVolumeStats,
    rpc::Type::VolumeCondition,
    rpc::Type::SingleNodeMultiWriter,
];

impl NodeService {
    /// A service that answers `Unavailable`, and why by `ready`, until it has its volumes. Unpublishing works at once.
    pub fn new(settings: NodeSettings, ready: Readiness) -> Self {
        Self { settings, ready, volumes: Arc::default(), stateless: Arc::default() }
    }

    /// The state directory cannot be used for now: what ends is served without its records from now on.
    pub fn serve_without_state(&self) {
        self.stateless.store(true, Ordering::Relaxed);
    }

    /// Serves calls about volumes from now on.
    pub fn serve_volumes(&self, volumes: Volumes) {
        // The process starts once, so this is called once; a second call would change nothing.
        let _ = self.volumes.set(volumes);
    }

    fn volumes(&self) -> Result<&Volumes, Status> {
        self.volumes.get().ok_or_else(|| {
            let why = self.ready.waiting_for().unwrap_or_default();
            status(Kind::Transient, &format!("the plugin is not ready yet ({why}); try again"))
        })
    }

    fn path(&self, field: &'static str, text: &str) -> Result<TargetPath, Status> {
        decode::path(&self.settings.kubelet_dir, field, text)
    }
}

async fn unpublish_early(target: TargetPath) -> Result<(), VolumeError> {
    let span = Span::current();
    let work = move || span.in_scope(|| unmount_without_records(&target));
    tokio::task::spawn_blocking(work).await.map_err(|error| VolumeError::Lost(error.to_string()))?
}

fn failed(error: VolumeError) -> Status {
    status(error.kind(), &error)
}

#[async_trait]
impl node_server::Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let wait = time_to_answer(request.metadata(), self.settings.pull_wait);
        let request = request.into_inner();
        let request = decode::request(
            &self.settings.kubelet_dir,
            RawVolumeRequest {
                volume_id: request.volume_id,
                field: "staging_target_path",
                path: request.staging_target_path,
                capability: request.volume_capability,
                context: request.volume_context,
                secrets: request.secrets,
                wait,
                // No pod is known yet, so kubelet names none; whoever does is the volume's author.
                for_pod: false,
                staged: true,
                read_only: false,
            },
        )?;
        self.volumes()?.stage(request).await.map_err(failed)?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = volume_id(&request.volume_id)?;
        let path = self.path("staging_target_path", &request.staging_target_path)?;
        if self.volumes.get().is_none() && self.stateless.load(Ordering::Relaxed) {
            // Nothing is mounted there. Kubelet removes the path, and the recovery then drops it from the record.
            tracing::warn!("a volume is unstaged without its record");
            return Ok(Response::new(NodeUnstageVolumeResponse {}));
        }
        self.volumes()?.unstage(volume, path).await.map_err(failed)?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let wait = time_to_answer(request.metadata(), self.settings.pull_wait);
        let request = request.into_inner();
        let request = decode::request(
            &self.settings.kubelet_dir,
            RawVolumeRequest {
                volume_id: request.volume_id,
                field: "target_path",
                path: request.target_path,
                capability: request.volume_capability,
                context: request.volume_context,
                secrets: request.secrets,
                wait,
                for_pod: true,
                staged: !request.staging_target_path.is_empty(),
                read_only: request.readonly,
            },
        )?;
        self.volumes()?.publish(request).await.map_err(failed)?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = volume_id(&request.volume_id)?;
        let target = self.path("target_path", &request.target_path)?;
        match self.volumes.get() {
            Some(volumes) => volumes.unpublish(volume, target).await,
            // A pod that ends does not wait for a store that opens slowly or not at all.
            None => unpublish_early(target).await,
        }
        .map_err(failed)?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = volume_id(&request.volume_id)?;
        if request.volume_path.is_empty() {
            return Err(status(Kind::Invalid, "volume_path is missing; the caller must name a path"));
        }
        // The path is only compared with the volume's record, so any text is safe.
        let found = self.volumes()?.statistics(volume, request.volume_path).await.map_err(failed)?;
        Ok(Response::new(statistics(found)))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capability =
            |kind: rpc::Type| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })) };
        let capabilities = CAPABILITIES.into_iter().map(capability).collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let node_id = self.settings.node_id.clone();
        Ok(Response::new(NodeGetInfoResponse { node_id, ..Default::default() }))
    }
}

/// What a pod may write and has written is that volume's size. Else the size of an image is its capacity. Nothing of it is in use and nothing is available, which CSI takes for "not
/// said": an image cannot fill up. An alert on volumes that fill up (`available / capacity`) fires for what is in use
/// only, and would do so for every image otherwise.
fn statistics(found: Statistics) -> NodeGetVolumeStatsResponse {
    let amount = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let of_image =
        |total, unit: Unit| VolumeUsage { available: 0, total: amount(total), used: 0, unit: unit.into() };
    let of_upper = |total: u64, free: u64, unit: Unit| VolumeUsage {
        available: amount(free),
        total: amount(total),
        used: amount(total.saturating_sub(free)),
        unit: unit.into(),
    };
    let usage = match found.usage {
        None => vec![of_image(found.bytes, Unit::Bytes), of_image(found.inodes, Unit::Inodes)],
        Some(upper) => vec![
            of_upper(upper.bytes, upper.free_bytes, Unit::Bytes),
            of_upper(upper.inodes, upper.free_inodes, Unit::Inodes),
        ],
    };
    NodeGetVolumeStatsResponse {
        usage,
        volume_condition: Some(VolumeCondition {
            abnormal: found.abnormal.is_some(),
            message: found.message(),
        }),
    }
}
