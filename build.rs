//! Generates the CSI messages and services from `proto/csi/csi.proto`, without protoc.

#![allow(clippy::print_stdout)] // Cargo reads build scripts on standard output.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

/// Messages that carry `secrets`, or a `volume_context` into which the kubelet puts service account
/// tokens. They get no `Debug`, so that no log line can ever print one.
const WITH_SECRETS: [&str; 14] = [
    "CreateVolumeRequest",
    "DeleteVolumeRequest",
    "ControllerPublishVolumeRequest",
    "ControllerUnpublishVolumeRequest",
    "ValidateVolumeCapabilitiesRequest",
    "ControllerModifyVolumeRequest",
    "ControllerExpandVolumeRequest",
    "CreateSnapshotRequest",
    "DeleteSnapshotRequest",
    "ListSnapshotsRequest",
    "GetSnapshotRequest",
    "NodeStageVolumeRequest",
    "NodePublishVolumeRequest",
    "NodeExpandVolumeRequest",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/csi/csi.proto");
    let descriptors = protox::compile(["csi/csi.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("csi.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .generate_default_stubs(true)
        .emit_rerun_if_changed(false)
        .skip_debug(WITH_SECRETS.map(|name| format!(".csi.v1.{name}")))
        .compile_fds(descriptors)?;
    Ok(())
}
