//! Volumes that their pod writes to, by the program and this machine's kernel. Needs root.

mod crashes;
mod disk;
mod figures;
mod limits;
mod refusals;
mod writes;

use std::path::{Path, PathBuf};

use composefs_csi::csi::proto::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use tonic::Status;

use crate::support::archive::noise;
use crate::support::driver::{Machine, Plugin, with_the_charts_rights};
use crate::support::images::{Layout, layout_from_dirs};

const MIB: u64 = 1 << 20;
/// What the operator of these nodes allows, in MiB.
const MOST: u64 = 64;

/// Directories, files of a MiB and of a few bytes, links, and an owner and a mode of the root.
fn layout() -> Layout {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("data/deep")).unwrap();
    fs::write(path("data/big"), noise("writable", MIB as usize)).unwrap();
    fs::write(path("data/deep/big"), noise("deep", 100_000)).unwrap();
    fs::write(path("data/small"), "small").unwrap();
    fs::write(path("linked"), noise("linked", 50_000)).unwrap();
    fs::hard_link(path("linked"), path("again")).unwrap();
    fs::create_dir(path("home")).unwrap();
    fs::write(path("home/file"), noise("home", 5000)).unwrap();
    fs::set_permissions(path("home/file"), fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["home", "home/file"] {
        chown(path(name), Some(1000), Some(1001)).unwrap();
    }
    fs::set_permissions(path("home"), fs::Permissions::from_mode(0o2750)).unwrap();
    fs::set_permissions(path(""), fs::Permissions::from_mode(0o1771)).unwrap();
    chown(path(""), Some(7), Some(8)).unwrap();
    layout_from_dirs(&[root.path()])
}

fn machine(layout: &Layout) -> Machine {
    Machine::new(&[
        &format!("--layout-dir={}", layout.path().display()),
        &format!("--writable-max-size={MOST}"),
        &format!("--writable-max-disk-size={MOST}"),
    ])
}

/// What the chart gives the plugin where volumes can be writable.
fn container() -> Vec<String> {
    with_the_charts_rights(&["DAC_READ_SEARCH", "SETFCAP"])
}

/// The same, on disk.
fn on_disk(machine: &Machine, pod: &str, image: &str, limit: &str) -> NodePublishVolumeRequest {
    let mut request = writable(machine, pod, image, limit);
    request.volume_context.insert("upperMedium".to_owned(), "Disk".to_owned());
    request
}

/// A writable inline volume of this limit.
fn writable(machine: &Machine, pod: &str, image: &str, limit: &str) -> NodePublishVolumeRequest {
    let mut request = machine.publish(pod, image);
    request.readonly = false;
    request.volume_context.insert("writable".to_owned(), "true".to_owned());
    request.volume_context.insert("upperSizeLimit".to_owned(), limit.to_owned());
    request
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<PathBuf, Status> {
    let target = PathBuf::from(&request.target_path);
    plugin.node.clone().node_publish_volume(request).await?;
    Ok(target)
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

async fn stats(plugin: &Plugin, machine: &Machine, pod: &str) -> NodeGetVolumeStatsResponse {
    let request = NodeGetVolumeStatsRequest {
        volume_id: format!("csi-{pod}"),
        volume_path: machine.target(pod).display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    plugin.node.clone().node_get_volume_stats(request).await.unwrap().into_inner()
}

/// Bytes and inodes in use.
async fn used(plugin: &Plugin, machine: &Machine, pod: &str) -> (i64, i64) {
    let usage = stats(plugin, machine, pod).await.usage;
    assert!(usage.iter().all(|usage| usage.used + usage.available == usage.total), "{usage:?}");
    (usage[0].used, usage[1].used)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid(), stat.mode() & 0o7777)
}
