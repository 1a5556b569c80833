//! The node plugin over its socket: what each call answers, and what is left after cancelled calls, killed
//! plugins and reboots. Fakes stand in for images and mounts; real mounts are `tests/mounts`'s.

mod authority;
mod calls;
mod interrupted;
mod many;
mod refusals;
mod restarts;
mod slow;
mod users;
mod writable;

use composefs_csi::csi::proto::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest};
use tonic::Code;

use crate::support::csi::Plugin;

async fn code_of(plugin: &Plugin, request: NodePublishVolumeRequest) -> (Code, String) {
    match plugin.node.clone().node_publish_volume(request).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

async fn unpublish(plugin: &Plugin, request: NodeUnpublishVolumeRequest) -> Code {
    plugin.node.clone().node_unpublish_volume(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}
