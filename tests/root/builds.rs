//! An image that takes long to build beside one that does not, by the running plugin.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::archive::archive;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};

/// A layer of a few kilobytes whose names lead through chains of long symbolic links, so that building it takes as many
/// steps as an image may.
fn winding() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o755);
        header
    };
    tar.append_data(&mut header(tar::EntryType::Directory), "a/", &[][..]).unwrap();
    for number in 0..40 {
        let last = if number < 39 { format!("s{}", number + 1) } else { "a".to_owned() };
        let target = format!("{}{last}", "a/../".repeat(800));
        let mut link = header(tar::EntryType::Symlink);
        tar.append_link(&mut link, format!("s{number}"), target).unwrap();
    }
    for number in 0..4000 {
        let name = format!("s{}/f{number}", number % 20);
        tar.append_data(&mut header(tar::EntryType::Regular), name, &[][..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn publish(plugin: &Plugin, machine: &Machine, pod: &str, layout: &Layout) -> JoinHandle<Result<(), Status>> {
    let (mut node, request) = (plugin.node.clone(), machine.publish(pod, &layout.reference("latest")));
    tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_build_keeps_no_other_waiting_and_can_be_ended() {
    let long = Layout::of(&Image::new(vec![winding()]));
    let short = Layout::of(&Image::new(vec![archive(&[("f", b"x")])]));
    let above = long.path().parent().unwrap().display().to_string();
    let machine = Machine::new(&[&format!("--layout-dir={above}")]);
    let plugin = machine.start().await;
    let hostile = publish(&plugin, &machine, "hostile", &long);
    let building = |pulls: &Value| pulls[0]["building"] == true;
    while !building(&machine.run(&["pulls"])) {
        assert!(!hostile.is_finished(), "it takes long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    publish(&plugin, &machine, "good", &short).await.unwrap().unwrap();
    assert!(!hostile.is_finished());
    machine.run(&["pulls", "cancel", &long.reference("latest")]);
    let status = hostile.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(machine.run(&["pulls"]), Value::Array(Vec::new()));
}
