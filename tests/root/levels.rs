//! Integrity levels by the program itself, on a machine whose store has no fs-verity: what is demanded is reached or
//! refused with the reason, and a check finds one flipped bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use composefs_csi::csi::proto::NodeGetVolumeStatsRequest;
use composefs_csi::image::verity::VerityDigest;
use tonic::Code;

use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};

fn layout(mark: &str) -> (Layout, Vec<u8>) {
    let content = mark.repeat(100_000).into_bytes();
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [("big", &content[..]), ("other", &[5; 300][..])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    (Layout::of(&Image::new(vec![archive.into_inner().unwrap()])), content)
}

fn machine(extra: &[&str]) -> Machine {
    let layouts = format!("--layout-dir={}", std::env::temp_dir().display());
    Machine::new(&[&[layouts.as_str()], extra].concat())
}

async fn publish(
    plugin: &Plugin,
    machine: &Machine,
    pod: &str,
    image: &str,
    verify: Option<&str>,
) -> Result<PathBuf, tonic::Status> {
    let mut request = machine.publish(pod, image);
    request.volume_context.extend(verify.map(|level| ("verify".to_owned(), level.to_owned())));
    plugin.node.clone().node_publish_volume(request).await?;
    Ok(machine.target(pod))
}

async fn condition(plugin: &Plugin, machine: &Machine, pod: &str) -> String {
    let request = NodeGetVolumeStatsRequest {
        volume_id: format!("csi-{pod}"),
        volume_path: machine.target(pod).display().to_string(),
        ..Default::default()
    };
    let answer = plugin.node.clone().node_get_volume_stats(request).await.unwrap().into_inner();
    let condition = answer.volume_condition.unwrap();
    assert!(!condition.abnormal, "{}", condition.message);
    condition.message
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

fn object(machine: &Machine, content: &[u8]) -> (PathBuf, String) {
    let hex = VerityDigest::of(content).hex();
    (machine.state().join("store/objects").join(&hex[..2]).join(&hex[2..]), hex)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_is_refused_where_the_kernel_does_not_check_reads() {
    let (layout, _) = layout("r");
    let machine = machine(&[]);
    let plugin = machine.start().await;
    let probed = machine.run(&["probe"]);
    let why = probed["verity_missing"].as_str().expect("this test is for a filesystem without fs-verity");
    let refused = publish(&plugin, &machine, "pod", &layout.reference("latest"), Some("read")).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains(why) && status.message().contains("`verify`"), "{status}");
    assert!(!machine.target("pod").exists());
    let lazily = probed["lazy_missing"].as_str().unwrap();
    assert!(lazily.contains("no fs-verity"), "{lazily}");
    let (image, place) = (layout.reference("latest"), machine.path().display().to_string());
    let refused = machine.command(&["mount", "--lazy", &image, &place]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains(lazily), "nothing weaker takes its place: {said}");
    assert_eq!(machine.run(&["ls"])["images"], serde_json::json!([]), "nothing was pulled for it");
    let status =
        publish(&plugin, &machine, "pod", &layout.reference("latest"), Some("reed")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    drop(plugin);

    let strict = self::machine(&["--integrity=read"]);
    let endpoint = format!("--endpoint=unix://{}", strict.path().join("csi.sock").display());
    let kubelet = strict.path().join("kubelet").display().to_string();
    let mut node =
        strict.command(&["node", "--node-id=n", &endpoint, "--kubelet-dir", &kubelet, "--integrity=read"]);
    let output = node.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--integrity") && said.contains(why), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_finds_a_flipped_bit_before_anybody_reads_it() {
    let (layout, content) = layout("m");
    let reference = layout.reference("latest");
    let machine = machine(&[]);
    let plugin = machine.start().await;
    // At level fetch first: the image is here, and has a base mount.
    publish(&plugin, &machine, "early", &reference, None).await.unwrap();
    assert!(condition(&plugin, &machine, "early").await.contains("level fetch"));
    let (path, hex) = object(&machine, &content);
    flip(&path);
    let status = publish(&plugin, &machine, "late", &reference, Some("mount")).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    let image = machine.run(&["inspect", &reference])["image"].as_str().unwrap().to_owned();
    for part in [&hex, &image] {
        assert!(status.message().contains(part.as_str()), "{part} is missing in {status}");
    }
    assert!(!machine.target("late").exists(), "nothing is half there");
    assert!(machine.target("early").join("other").exists(), "and who has it keeps it");

    flip(&path);
    let target = publish(&plugin, &machine, "late", &reference, Some("mount")).await.unwrap();
    assert_eq!(fs::read(target.join("big")).unwrap(), content);
    assert!(condition(&plugin, &machine, "late").await.contains("level mount"));
    // The check was of one base mount: those who share it need none of their own.
    flip(&path);
    publish(&plugin, &machine, "third", &reference, Some("mount")).await.unwrap();
    flip(&path);
    let log = machine.log();
    assert_eq!(log.matches("checked before its mount").count(), 1, "{log}");
    assert!(log.lines().any(|line| line.contains("published") && line.contains("integrity=mount")), "{log}");
    // The image itself.
    for pod in ["early", "late", "third"] {
        unpublish(&plugin, &machine, pod).await;
    }
    let whole = machine.state().join("store/objects").join(&image[..2]).join(&image[2..]);
    flip(&whole);
    let status = publish(&plugin, &machine, "late", &reference, Some("mount")).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(status.message().contains(&image), "{status}");
    flip(&whole);
    fs::remove_file(&path).unwrap();
    let status = publish(&plugin, &machine, "late", &reference, Some("mount")).await.unwrap_err();
    assert!(status.code() == Code::DataLoss && status.message().contains("is missing"), "{status}");
    drop(plugin);
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_can_demand_it_of_every_mount() {
    let (layout, content) = layout("n");
    let reference = layout.reference("latest");
    let machine = machine(&["--integrity=mount"]);
    let plugin = machine.start().await;
    publish(&plugin, &machine, "pod", &reference, Some("fetch")).await.unwrap();
    assert!(condition(&plugin, &machine, "pod").await.contains("level mount"), "the higher demand wins");
    drop(plugin);
    // The mount stays, and it is still known how it was made.
    let plugin = machine.start().await;
    assert!(condition(&plugin, &machine, "pod").await.contains("level mount"));
    flip(&object(&machine, &content).0);
    let status = publish(&plugin, &machine, "other", &reference, None).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "a new process checks anew: {status}");
    unpublish(&plugin, &machine, "pod").await;
}
