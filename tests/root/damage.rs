//! Corruption under a running plugin: what the kernel complains about is logged with object and image, shows in the
//! volume's condition, and where the image cannot be fetched again (`repair.rs` is about that), what is damaged can be removed.
//! Needs root.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::NodeGetVolumeStatsRequest;
use composefs_csi::image::verity::VerityDigest;

use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};

fn archive(content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", content).unwrap();
    archive.into_inner().unwrap()
}

async fn condition(plugin: &Plugin, machine: &Machine) -> String {
    let request = NodeGetVolumeStatsRequest {
        volume_id: "csi-a".to_owned(),
        volume_path: machine.target("a").display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = plugin.node.clone().node_get_volume_stats(request).await.unwrap().into_inner();
    let condition = stats.volume_condition.unwrap();
    if condition.abnormal { condition.message } else { String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_refuses_is_named_and_repaired() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let layout = Layout::of(&Image::new(vec![archive(&content)]));
    let directory = layout.reference("latest");
    let machine = Machine::new(&["--layout-dir=/"]);
    let plugin = machine.start().await;
    let image = directory.as_str();
    plugin.node.clone().node_publish_volume(machine.publish("a", image)).await.unwrap();
    assert_eq!(condition(&plugin, &machine).await, "");
    // From here on it cannot be fetched.
    let away = layout.path().with_extension("away");
    std::fs::rename(layout.path(), &away).unwrap();

    // This machine's filesystem may have no fs-verity, so the kernel's part is played through the log's own device:
    // what the plugin does about it is real.
    let digest = VerityDigest::of(&content).hex();
    let object = machine.state().join("store/objects").join(&digest[..2]).join(&digest[2..]);
    let inode = std::fs::metadata(&object).unwrap().ino();
    let mut changed = content.clone();
    changed[7] ^= 1;
    std::fs::write(&object, &changed).unwrap();
    std::fs::write(
        "/dev/kmsg",
        format!("fs-verity (test, inode {inode}): FILE CORRUPTED! pos=0, level=-1\n"),
    )
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while condition(&plugin, &machine).await.is_empty() {
        assert!(Instant::now() < deadline, "the complaint leads nowhere");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let complaint = condition(&plugin, &machine).await;
    assert!(complaint.contains(&digest) && complaint.contains("store repair"), "{complaint}");
    let log = machine.log();
    let line = log.lines().find(|line| line.contains("an object in use")).expect("an error in the log");
    assert!(line.contains(&digest) && line.contains(image), "{line}");

    let output = machine.command(&["verify"]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && printed.contains(&digest) && printed.contains(image), "{printed}");
    let output = machine.command(&["verify", "--repair"]).output().unwrap();
    assert!(!output.status.success(), "what is damaged is said to the end");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("pull again: {image}")));
    std::fs::rename(&away, layout.path()).unwrap();
    machine.run(&["pull", image]);
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
    // A mount may hold on to the object that it opened; a new one, after the last, shows the repaired object.
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    plugin.node.clone().node_publish_volume(machine.publish("a", image)).await.unwrap();
    assert_eq!(std::fs::read(machine.target("a").join("file")).unwrap(), content);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
}
