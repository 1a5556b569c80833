//! A store whose records somebody else has written to, or whose key is another one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tonic::Code;

use super::fixture::*;
use crate::support::images::Layout;

fn only_file(directory: &Path) -> PathBuf {
    let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none(), "{}", directory.display());
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_altered_is_not_used() {
    let layout = Layout::of(&image("d"));
    let reference = layout.reference("latest");
    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    publish(&plugin, &machine, "pod", &reference).await.unwrap();
    unpublish(&plugin, &machine, "pod").await;
    let record = only_file(&machine.state().join("store/images"));
    let text = fs::read_to_string(&record).unwrap();
    let genuine: Value = serde_json::from_str(&text).unwrap();
    let image = genuine["image"].as_str().unwrap();
    fs::write(&record, text.replace(image, &"ab".repeat(32))).unwrap();

    let status = publish_by(&plugin, &machine, "pod", &reference, "Never").await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    for part in [record.to_str().unwrap(), genuine["manifest"].as_str().unwrap(), "not authentic"] {
        assert!(status.message().contains(part), "{part} is missing in {}", status.message());
    }
    // Where the registry may be asked, everything is verified once more.
    let target = publish(&plugin, &machine, "pod", &reference).await.unwrap();
    assert_eq!(fs::read(target.join("usr/small")).unwrap(), b"d");
    let log = machine.log();
    let error = log.lines().find(|line| line.contains("ERROR") && line.contains(record.to_str().unwrap()));
    assert!(error.is_some_and(|line| line.contains(genuine["manifest"].as_str().unwrap())), "{log}");
    assert!(record.with_extension("forged").exists());
    let now: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(now["image"], genuine["image"], "the first digest still holds");
    unpublish(&plugin, &machine, "pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_record_that_somebody_altered_poisons_no_image() {
    let mut layout = Layout::of(&image("e"));
    layout.add(&image("f"), "second");
    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    publish(&plugin, &machine, "first", &layout.reference("latest")).await.unwrap();
    // The first image's layers; the second image has one of them.
    let records = machine.state().join("store/layers");
    let mut altered = Vec::new();
    for path in fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        altered.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(altered.len(), 2);
    let status = publish(&plugin, &machine, "second", &layout.reference("second")).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(altered.iter().any(|layer| status.message().contains(layer)), "{status}");
    // The retry that kubelet makes fetches the layer anew.
    let target = publish(&plugin, &machine, "second", &layout.reference("second")).await.unwrap();
    assert_eq!(fs::read(target.join("usr/own")).unwrap(), "f".repeat(1000).as_bytes());
    assert_eq!(fs::read(target.join("usr/common")).unwrap(), [7; 5000]);
    for pod in ["first", "second"] {
        unpublish(&plugin, &machine, pod).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_means_pulling_again_and_a_bad_one_no_start() {
    let layout = Layout::of(&image("g"));
    let reference = layout.reference("latest");
    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    publish(&plugin, &machine, "before", &reference).await.unwrap();
    let key = machine.state().join("node.key");
    assert_eq!(fs::metadata(&key).unwrap().len(), 32);
    drop(plugin);
    fs::remove_file(&key).unwrap();
    let plugin = machine.start().await;
    let record = machine.state().join("store/images");
    assert!(machine.log().contains("not authentic"), "{}", machine.log());
    let status = publish_by(&plugin, &machine, "after", &reference, "Never").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let target = publish(&plugin, &machine, "after", &reference).await.unwrap();
    assert_eq!(fs::read(target.join("usr/small")).unwrap(), b"g");
    let old = machine.target("before");
    assert_eq!(fs::read(old.join("usr/small")).unwrap(), b"g", "what is mounted stays");
    assert!(fs::read_dir(record).unwrap().count() == 2, "the new record and the old one put aside");
    for pod in ["before", "after"] {
        unpublish(&plugin, &machine, pod).await;
    }
    drop(plugin);
    fs::write(&key, [1; 16]).unwrap();
    let complaint = refused(&machine, &["ls"]);
    assert!(complaint.contains(key.to_str().unwrap()) && complaint.contains("16 bytes"), "{complaint}");
    fs::remove_file(&key).unwrap();
    let inside = machine.state().join("store/key").display().to_string();
    let complaint = refused(&machine, &["--node-key", &inside, "ls"]);
    assert!(complaint.contains("inside the store"), "{complaint}");
}
