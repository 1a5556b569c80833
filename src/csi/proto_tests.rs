//! `proto/csi/csi.proto` against the numbers that the specification fixes.

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};

fn file() -> FileDescriptorProto {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/csi.bin"));
    let set = FileDescriptorSet::decode(bytes).unwrap();
    set.file.into_iter().find(|file| file.package() == "csi.v1").unwrap()
}

fn message(name: &str) -> DescriptorProto {
    let mut parts = name.split('.');
    let first = parts.next().unwrap();
    let top = file().message_type.into_iter().find(|message| message.name() == first).unwrap();
    parts.fold(top, |outer, part| {
        outer.nested_type.into_iter().find(|message| message.name() == part).unwrap()
    })
}

fn fields(name: &str) -> Vec<(String, i32)> {
    message(name).field.iter().map(|field| (field.name().to_owned(), field.number())).collect()
}

/// Field numbers of the messages that the driver reads and writes, CSI 1.12.
const FIELDS: [(&str, &[(&str, i32)]); 17] = [
    ("GetPluginInfoResponse", &[("name", 1), ("vendor_version", 2), ("manifest", 3)]),
    ("ProbeResponse", &[("ready", 1)]),
    (
        "CreateVolumeRequest",
        &[
            ("name", 1),
            ("capacity_range", 2),
            ("volume_capabilities", 3),
            ("parameters", 4),
            ("secrets", 5),
            ("volume_content_source", 6),
            ("accessibility_requirements", 7),
            ("mutable_parameters", 8),
        ],
    ),
    (
        "Volume",
        &[
            ("capacity_bytes", 1),
            ("volume_id", 2),
            ("volume_context", 3),
            ("content_source", 4),
            ("accessible_topology", 5),
        ],
    ),
    ("VolumeCapability", &[("block", 1), ("mount", 2), ("access_mode", 3)]),
    ("VolumeCapability.MountVolume", &[("fs_type", 1), ("mount_flags", 2), ("volume_mount_group", 3)]),
    ("CapacityRange", &[("required_bytes", 1), ("limit_bytes", 2)]),
    ("DeleteVolumeRequest", &[("volume_id", 1), ("secrets", 2)]),
    (
        "ValidateVolumeCapabilitiesResponse.Confirmed",
        &[("volume_context", 1), ("volume_capabilities", 2), ("parameters", 3), ("mutable_parameters", 4)],
    ),
    (
        "NodeStageVolumeRequest",
        &[
            ("volume_id", 1),
            ("publish_context", 2),
            ("staging_target_path", 3),
            ("volume_capability", 4),
            ("secrets", 5),
            ("volume_context", 6),
        ],
    ),
    ("NodeUnstageVolumeRequest", &[("volume_id", 1), ("staging_target_path", 2)]),
    (
        "NodePublishVolumeRequest",
        &[
            ("volume_id", 1),
            ("publish_context", 2),
            ("staging_target_path", 3),
            ("target_path", 4),
            ("volume_capability", 5),
            ("readonly", 6),
            ("secrets", 7),
            ("volume_context", 8),
        ],
    ),
    ("NodeUnpublishVolumeRequest", &[("volume_id", 1), ("target_path", 2)]),
    ("NodeGetVolumeStatsRequest", &[("volume_id", 1), ("volume_path", 2), ("staging_target_path", 3)]),
    ("VolumeUsage", &[("available", 1), ("total", 2), ("used", 3), ("unit", 4)]),
    ("VolumeCondition", &[("abnormal", 1), ("message", 2)]),
    ("NodeGetInfoResponse", &[("node_id", 1), ("max_volumes_per_node", 2), ("accessible_topology", 3)]),
];

#[test]
fn field_numbers_are_the_specifications() {
    for (name, expected) in FIELDS {
        let expected: Vec<_> = expected.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        assert_eq!(fields(name), expected, "{name}");
    }
}

#[test]
fn services_have_every_call() {
    let counts: Vec<_> =
        file().service.iter().map(|service| (service.name().to_owned(), service.method.len())).collect();
    assert_eq!(counts, [("Identity".into(), 3), ("Controller".into(), 15), ("Node".into(), 8)]);
}

/// A new message with secrets must be added to the list in `build.rs`.
#[test]
fn messages_with_secrets_have_no_debug() {
    let build = include_str!("../../build.rs");
    for message in file().message_type {
        let sensitive = |name: &str| name == "secrets" || name == "volume_context";
        if message.name().ends_with("Request") && message.field.iter().any(|field| sensitive(field.name())) {
            assert!(build.contains(&format!("\"{}\"", message.name())), "{}", message.name());
        }
    }
}
