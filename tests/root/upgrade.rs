//! Stores of other releases: one that an earlier build has written, as recorded in `tests/fixtures`, is opened, and what is in
//! it published; one of a newer release is read as far as its features allow. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use composefs_csi::image::verity::VerityDigest;
use tonic::Code;

use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};

/// What the recorded image is called. The layout itself is not there any more.
const IMAGE: &str = "oci:/tmp/composefs-csi-fixture:1";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-0.1.0-13cb8cc.tar.gz")
}

fn file() -> Vec<u8> {
    noise("of an earlier release", 6000)
}

fn tar(arguments: &[&str], fixture: &Path, state: &Path) {
    let what: &[&str] = if arguments.contains(&"-c") { &["store", "node.key"] } else { &[] };
    let mut tar = Command::new("tar");
    tar.args(arguments).arg("-f").arg(fixture).arg("-C").arg(state).args(what);
    assert!(tar.status().expect("tar").success());
}

/// Records the fixture. It was run once, with the program that was built of commit 13cb8cc:
/// `COMPOSEFS_CSI_TEST_PROGRAM=… cargo test --test root -- --ignored records_a_store`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes tests/fixtures"]
async fn records_a_store() {
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &file()), ("small", b"inline")])]));
    let place = Path::new("/tmp/composefs-csi-fixture");
    assert!(Command::new("cp").arg("-r").arg(layout.path()).arg(place).status().unwrap().success());
    let index = std::fs::read_to_string(place.join("index.json")).unwrap();
    std::fs::write(place.join("index.json"), index.replace("\"latest\"", "\"1\"")).unwrap();
    let machine = Machine::new(&["--layout-dir=/"]);
    let plugin = machine.start().await;
    machine.run(&["pull", IMAGE]);
    plugin.node.clone().node_publish_volume(machine.publish("a", IMAGE)).await.unwrap();
    machine.run(&["pin", IMAGE, "--reason", "recorded"]);
    drop(plugin);
    tar(
        &["-c", "-z", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"],
        &fixture(),
        &machine.state(),
    );
    std::fs::remove_dir_all(place).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_an_earlier_release_opens_and_its_image_is_published() {
    let machine = Machine::new(&["--layout-dir=/"]);
    std::fs::create_dir_all(machine.state()).unwrap();
    tar(&["-x", "-z"], &fixture(), &machine.state());
    let version = machine.state().join("store/version");
    let written = std::fs::read(&version).unwrap();

    let listed = machine.run(&["ls"]);
    let image = &listed["images"][0];
    assert_eq!((&image["names"][0], &image["pinned"]), (&IMAGE.into(), &true.into()), "{listed}");
    let kept = machine.run(&["store", "why", IMAGE]).to_string();
    assert!(kept.contains("csi-a") && kept.contains("recorded"), "its volume and its pin: {kept}");
    let checked = machine.run(&["store", "fsck"]);
    // A volume of this boot is not mounted, which is a note.
    let sound = checked["findings"].as_array().unwrap().iter().all(|finding| finding["weight"] == "note");
    assert!(checked["images"] == 1 && sound, "{checked}");
    assert_eq!(machine.run(&["verify"])["damaged"], serde_json::json!([]));

    let plugin = machine.start().await;
    plugin.node.clone().node_publish_volume(machine.publish("b", IMAGE)).await.unwrap();
    assert_eq!(std::fs::read(machine.target("b").join("file")).unwrap(), file());
    assert_eq!(std::fs::read(machine.target("b").join("small")).unwrap(), b"inline");
    // The earlier release may come back: nothing says that it may not.
    assert_eq!(std::fs::read(&version).unwrap(), written);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("b")).await.unwrap();
    // The recorded volume is kubelet's to publish again, or to end.
    assert_eq!(machine.published(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_may_only_be_read_gives_what_it_has() {
    let content = noise("of a newer release", 6000);
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &content)])]));
    let other = Layout::of(&Image::new(vec![archive(&[("other", &content)])]));
    let (image, other) = (layout.reference("latest"), other.reference("latest"));
    let machine = Machine::new(&["--layout-dir=/"]);
    machine.run(&["pull", &image]);
    let version = machine.state().join("store/version");
    let newer =
        r#"{"format":1,"algorithm":"sha256","release":"9.1.0","read_only_compatible":["new-records"]}"#;
    std::fs::write(&version, newer).unwrap();

    let plugin = machine.start().await;
    plugin.node.clone().node_publish_volume(machine.publish("a", &image)).await.unwrap();
    assert_eq!(std::fs::read(machine.target("a").join("file")).unwrap(), content);
    let refused = plugin.node.clone().node_publish_volume(machine.publish("b", &other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    for word in ["9.1.0", "new-records", "only read"] {
        assert!(refused.message().contains(word), "{refused}");
    }
    drop(plugin);
    // As after the upgrade of the plugin.
    let plugin = machine.start().await;
    assert_eq!(std::fs::read(machine.target("a").join("file")).unwrap(), content);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
    let pruned = machine.command(&["prune"]).output().unwrap();
    assert!(!pruned.status.success() && String::from_utf8_lossy(&pruned.stderr).contains("9.1.0"));
    assert_eq!(std::fs::read_to_string(&version).unwrap(), newer);
    let hex = VerityDigest::of(&content).hex();
    assert!(machine.state().join("store/objects").join(&hex[..2]).join(&hex[2..]).is_file());
    drop(plugin);

    std::fs::write(&version, newer.replace("read_only_compatible", "incompatible")).unwrap();
    let refused = machine.command(&["ls"]).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("9.1.0"));
}
