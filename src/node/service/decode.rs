//! Requests, from the wire into types. The answer to what cannot be parsed is InvalidArgument.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use tonic::Status;
use tracing::Span;

use crate::csi::capability::access;
use crate::csi::proto::VolumeCapability;
use crate::csi::span::note_volume;
use crate::csi::status::status;
use crate::node::credential_providers::PodIdentity;
use crate::node::volume::VolumeRequest;
use crate::node::volume::target::TargetPath;
use crate::volume::attributes::PodInfo;
use crate::volume::content::Content;
use crate::volume::id::{VolumeId, VolumeIdError};
use crate::volume::secrets::{self, Tokens};
use crate::volume::upper::Upper;

/// What kubelet says of inline volumes where the CSIDriver has `podInfoOnMount`.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";

/// The fields that stage and publish requests have in common, not parsed yet.
pub(super) struct RawVolumeRequest {
    pub volume_id: String,
    /// The request's field with the path.
    pub field: &'static str,
    pub path: String,
    pub capability: Option<VolumeCapability>,
    pub context: HashMap<String, String>,
    pub secrets: HashMap<String, String>,
    /// How long the call may wait.
    pub wait: Duration,
    /// Whether the request is for a pod, which kubelet names then.
    pub for_pod: bool,
    /// Whether it is of a PersistentVolume, which has a staging path.
    pub staged: bool,
    /// Whether the pod asks for a read-only volume.
    pub read_only: bool,
}

/// The pod of a publish, if it is kubelet who names it.
///
/// Kubelet overwrites the pod's keys where the CSIDriver has `podInfoOnMount`. Elsewhere they are as the volume's
/// author wrote them, who might name another team's pod. The target is kubelet's own in any case, and lies in the
/// directory of the pod's unique id.
fn identity(
    kubelet: &Path,
    pod: PodInfo,
    target: &TargetPath,
    secrets: &HashMap<String, String>,
) -> Result<PodIdentity, Status> {
    let tokens = Tokens::of(secrets).map_err(|error| status(error.kind(), &error))?;
    if target.is_of_pod(kubelet, &pod.uid) {
        return Ok(PodIdentity { pod, tokens });
    }
    if pod != PodInfo::default() {
        tracing::warn!(
            pod.name = %pod, pod.uid = pod.uid,
            "the volume names another pod than it is published for, and is taken for one of no known pod; is \
             podInfoOnMount set in the CSIDriver?"
        );
    }
    Ok(PodIdentity { pod: PodInfo::default(), tokens })
}

/// Parses a request; the answer to one that cannot be is Invalid.
pub(super) fn request(kubelet: &Path, raw: RawVolumeRequest) -> Result<VolumeRequest, Status> {
    // The volume id first: every later error is then logged with it.
    let volume = volume_id(&raw.volume_id)?;
    let target = path(kubelet, raw.field, &raw.path)?;
    Span::current().record("target_path", tracing::field::display(&target));
    let access = access(raw.capability.as_ref()).map_err(|error| status(error.kind(), &error))?;
    let (content, pod) = Content::parse(&raw.context).map_err(|error| status(error.kind(), &error))?;
    if content.upper().is_some() {
        // Kubelet writes the key over what a PersistentVolume's author may have put there; only those are staged.
        let inline =
            raw.for_pod && !raw.staged && raw.context.get(EPHEMERAL).is_some_and(|text| text == "true");
        Upper::check_use(inline, raw.read_only).map_err(|error| status(error.kind(), &error))?;
    }
    let credentials = secrets::credentials(&raw.secrets).map_err(|error| status(error.kind(), &error))?;
    let identity =
        if raw.for_pod { identity(kubelet, pod, &target, &raw.secrets)? } else { PodIdentity::default() };
    Ok(VolumeRequest { volume, target, content, access, identity, credentials, wait: raw.wait })
}

/// Parses a volume's id.
pub(super) fn volume_id(text: &str) -> Result<VolumeId, Status> {
    let id: VolumeId = text.parse().map_err(|error: VolumeIdError| status(error.kind(), &error))?;
    note_volume(&id);
    Ok(id)
}

/// Parses the path in the request's `field`.
pub(super) fn path(kubelet: &Path, field: &'static str, text: &str) -> Result<TargetPath, Status> {
    TargetPath::parse(field, text, kubelet).map_err(|error| status(error.kind(), &error))
}
