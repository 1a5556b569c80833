//! Damage under running pods: found, fetched again by the rights of who shows it, put under the mounts, and seen by the pods;
//! what cannot be fetched is in quarantine until it can. Needs root.

use std::io::{Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use composefs_csi::csi::proto::{NodeGetVolumeStatsRequest, NodePublishVolumeRequest};
use composefs_csi::image::verity::VerityDigest;
use tonic::Code;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};
use crate::support::wait::eventually;

const FILES: usize = 8;

/// The content of file `number` of `name`: too large to be inline, and of no other test.
fn content(name: &str, number: usize) -> Vec<u8> {
    noise(&format!("{name}-{number}"), 20_000)
}

fn layer(name: &str) -> Vec<u8> {
    let files: Vec<_> = (0..FILES).map(|number| (format!("file{number}"), content(name, number))).collect();
    archive(&files.iter().map(|(path, content)| (path.as_str(), &content[..])).collect::<Vec<_>>())
}

fn object(machine: &Machine, content: &[u8]) -> PathBuf {
    let hex = VerityDigest::of(content).hex();
    machine.state().join("store/objects").join(&hex[..2]).join(&hex[2..])
}

/// Turns one bit over, in place.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[7] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Says what the kernel says where the filesystem has fs-verity: this machine's may have none.
fn complain(path: &Path) {
    let inode = std::fs::metadata(path).unwrap().ino();
    let line = format!("fs-verity (test, inode {inode}): FILE CORRUPTED! pos=0, level=-1\n");
    std::fs::write("/dev/kmsg", line).unwrap();
}

/// What is wrong with a pod's volume; empty if nothing is.
async fn condition(plugin: &Plugin, machine: &Machine, pod: &str) -> String {
    let request = NodeGetVolumeStatsRequest {
        volume_id: format!("csi-{pod}"),
        volume_path: machine.target(pod).display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let stats = plugin.node.clone().node_get_volume_stats(request).await.unwrap().into_inner();
    let condition = stats.volume_condition.unwrap();
    if condition.abnormal { condition.message } else { String::new() }
}

async fn until_condition(
    plugin: &Plugin,
    machine: &Machine,
    pod: &str,
    is_so: impl Fn(&str) -> bool,
) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(150);
    loop {
        let condition = condition(plugin, machine, pod).await;
        if is_so(&condition) {
            return condition;
        }
        assert!(std::time::Instant::now() < deadline, "{condition:?}; {}", machine.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn reads(machine: &Machine, pod: &str, name: &str, number: usize) -> bool {
    let read = std::fs::read(machine.target(pod).join(format!("file{number}")));
    read.is_ok_and(|read| read == content(name, number))
}

fn assert_whole(machine: &Machine, pod: &str, name: &str) {
    for number in 0..FILES {
        assert!(reads(machine, pod, name, number), "file{number}; {}", machine.log_tail());
    }
}

fn marks(machine: &Machine) -> usize {
    std::fs::read_dir(machine.state().join("store/damaged")).unwrap().count()
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<(), tonic::Status> {
    plugin.node.clone().node_publish_volume(request).await.map(drop)
}

async fn end(plugin: &Plugin, machine: &Machine, pods: &[&str]) {
    for pod in pods {
        plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
    }
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scrubbing_finds_is_fetched_again_and_seen_by_the_running_pod() {
    const NAME: &str = "scrubbed";
    let layout = Layout::of(&Image::new(vec![layer(NAME)]));
    let image = layout.reference("latest");
    let machine = Machine::new(&["--layout-dir=/"]);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &image)).await.unwrap();
    // From here on the mount remembers each object.
    assert_whole(&machine, "a", NAME);
    let mut open = std::fs::File::open(machine.target("a").join("file3")).unwrap();

    flip(&object(&machine, &content(NAME, 0)));
    std::fs::write(object(&machine, &content(NAME, 1)), b"cut off").unwrap();
    std::fs::remove_file(object(&machine, &content(NAME, 2))).unwrap();
    flip(&object(&machine, &content(NAME, 3)));
    let scrubbed = machine.command(&["store", "scrub", "--output", "json"]).output().unwrap();
    assert!(!scrubbed.status.success());
    let scrubbed: serde_json::Value = serde_json::from_slice(&scrubbed.stdout).unwrap();
    assert_eq!(scrubbed["found"].as_array().unwrap().len(), 4, "{scrubbed}");
    assert_eq!(scrubbed["damaged"], 4);

    // The plugin looks for what others have found once a minute.
    eventually("the repair", || {
        marks(&machine) == 0 && [0, 1, 2].into_iter().all(|n| reads(&machine, "a", NAME, n))
    })
    .await;
    until_condition(&plugin, &machine, "a", str::is_empty).await;
    // Whoever has a file open keeps what it has opened, and so does everybody else until then.
    let mut old = Vec::new();
    open.rewind().unwrap();
    open.read_to_end(&mut old).unwrap();
    assert_ne!(old, content(NAME, 3));
    drop(open);
    eventually("the file that was open", || reads(&machine, "a", NAME, 3)).await;

    // What the mount shows and what the records name are the same, so a collection takes nothing of it.
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
    machine.run(&["prune"]);
    assert_whole(&machine, "a", NAME);
    assert_eq!(machine.run(&["ls"])["images"].as_array().unwrap().len(), 1);
    end(&plugin, &machine, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_repairs_under_mounts_without_a_plugin() {
    const NAME: &str = "by command";
    let layout = Layout::of(&Image::new(vec![layer(NAME), archive(&[("other", b"x")])]));
    let image = layout.reference("latest");
    let machine = Machine::new(&["--layout-dir=/"]);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &image)).await.unwrap();
    assert_whole(&machine, "a", NAME);
    drop(plugin);
    let composefs = machine.run(&["ls"])["images"][0]["image"].as_str().unwrap().to_owned();
    let erofs = machine.state().join("store/objects").join(&composefs[..2]).join(&composefs[2..]);
    let bytes = std::fs::read(&erofs).unwrap();
    flip(&object(&machine, &content(NAME, 0)));
    std::fs::remove_file(object(&machine, &content(NAME, 1))).unwrap();
    // A directory in the place of an object, and the composefs image itself.
    std::fs::remove_file(object(&machine, &content(NAME, 2))).unwrap();
    std::fs::create_dir(object(&machine, &content(NAME, 2))).unwrap();
    std::fs::remove_file(&erofs).unwrap();

    let repaired = machine.run(&["store", "repair"]);
    assert_eq!(repaired["damaged"].as_array().unwrap().len(), 4, "{repaired}");
    assert_eq!(repaired["repaired"].as_array().unwrap().len(), 1, "{repaired}");
    assert_eq!(std::fs::read(&erofs).unwrap(), bytes);
    assert_whole(&machine, "a", NAME);
    assert_eq!(marks(&machine), 0);
    let again = machine.run(&["store", "repair", &image]);
    assert_eq!((&again["damaged"], &again["repaired"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(machine.run(&["store", "fsck"])["findings"], serde_json::json!([]));
    let plugin = machine.start().await;
    assert_eq!(condition(&plugin, &machine, "a").await, "");
    end(&plugin, &machine, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_registry_an_image_is_in_quarantine_until_it_is_back() {
    const NAME: &str = "quarantined";
    let layout = Layout::of(&Image::new(vec![layer(NAME)]));
    let image = layout.reference("latest");
    let machine = Machine::new(&["--layout-dir=/"]);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &image)).await.unwrap();
    assert_whole(&machine, "a", NAME);
    let away = layout.path().with_extension("away");
    std::fs::rename(layout.path(), &away).unwrap();
    let damaged = object(&machine, &content(NAME, 5));
    let hex = VerityDigest::of(&content(NAME, 5)).hex();
    flip(&damaged);
    complain(&damaged);
    let abnormal = until_condition(&plugin, &machine, "a", |condition| !condition.is_empty()).await;
    assert!(abnormal.contains(&hex) && abnormal.contains("store repair"), "{abnormal}");
    let refused = publish(&plugin, machine.publish("b", &image)).await.unwrap_err();
    let said = refused.message();
    assert!(
        said.contains("in quarantine") && said.contains(&hex) && said.contains("store repair"),
        "{refused}"
    );
    assert!(said.contains(&image), "{refused}");
    let repaired = machine.command(&["store", "repair"]).output().unwrap();
    let text = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(!repaired.status.success() && text.contains("in quarantine: ") && text.contains(&hex), "{text}");
    // Nothing is taken away under the mount, nor by a collection.
    machine.run(&["prune"]);
    for number in (0..FILES).filter(|number| *number != 5) {
        assert!(reads(&machine, "a", NAME, number), "file{number}");
    }
    let listed = machine.run(&["ls"]);
    assert_eq!(listed["images"].as_array().unwrap().len(), 1, "the image keeps its record");
    assert_eq!(listed["images"][0]["quarantined"], true, "{listed}");

    // It is known after a restart.
    drop(plugin);
    let plugin = machine.start().await;
    until_condition(&plugin, &machine, "a", |condition| condition.contains(&hex)).await;
    assert!(
        publish(&plugin, machine.publish("b", &image)).await.unwrap_err().message().contains("in quarantine")
    );
    std::fs::rename(&away, layout.path()).unwrap();
    until_condition(&plugin, &machine, "a", str::is_empty).await;
    publish(&plugin, machine.publish("b", &image)).await.unwrap();
    eventually("the repaired file", || reads(&machine, "a", NAME, 5)).await;
    assert_whole(&machine, "b", NAME);
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
    end(&plugin, &machine, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_killed_is_made_by_the_next_plugin() {
    const NAME: &str = "killed";
    let layout = Layout::of(&Image::new(vec![layer(NAME)]));
    let registry = Registry::start(Options::default());
    registry.push(&layout.reference("latest"), "team/killed:1", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let image = format!("{}/team/killed:1", proxy.address);
    let machine = Machine::new(&["--insecure-registry", &proxy.address.to_string()]);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &image)).await.unwrap();
    assert_whole(&machine, "a", NAME);
    for number in 0..FILES {
        flip(&object(&machine, &content(NAME, number)));
    }
    // The manifest comes, and some of the layer.
    proxy.throttle(20_000);
    let before = proxy.passed();
    assert!(!machine.command(&["store", "scrub"]).status().unwrap().success());
    assert_eq!(marks(&machine), FILES);
    complain(&object(&machine, &content(NAME, 0)));
    eventually("some of the layer", || proxy.passed() > before + 30_000).await;
    drop(plugin);
    assert!(marks(&machine) > 0, "nothing is taken for whole before it is");
    proxy.throttle(0);
    let plugin = machine.start().await;
    eventually("the repair", || marks(&machine) == 0).await;
    until_condition(&plugin, &machine, "a", str::is_empty).await;
    eventually("what the pod reads", || (0..FILES).all(|number| reads(&machine, "a", NAME, number))).await;
    end(&plugin, &machine, &["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_rights_learns_nothing_of_damage_and_repairs_nothing() {
    const NAME: &str = "of a tenant";
    const USER: (&str, &str) = ("tenant", "word-of-the-tenant");
    let layout = Layout::of(&Image::new(vec![layer(NAME)]));
    let registry = Registry::start(Options { tls: false, user: Some(USER) });
    registry.push(&layout.reference("latest"), "team/private:1", &[]);
    let image = format!("{}/team/private:1", registry.host());
    let machine = Machine::new(&["--insecure-registry", &registry.host()]);
    let plugin = machine.start().await;
    let config = String::from_utf8(registry.docker_config(USER.1)).unwrap();
    let owner = |pod: &str| {
        let mut request = machine.publish(pod, &image);
        request.secrets.insert(".dockerconfigjson".to_owned(), config.clone());
        request
    };
    let before = publish(&plugin, machine.publish("stranger", &image)).await.unwrap_err();
    publish(&plugin, owner("a")).await.unwrap();
    assert_whole(&machine, "a", NAME);

    // Nobody's credentials are let in now, so the image stays damaged.
    registry.set_user((USER.0, "another"));
    let damaged = object(&machine, &content(NAME, 0));
    flip(&damaged);
    complain(&damaged);
    until_condition(&plugin, &machine, "a", |condition| !condition.is_empty()).await;
    let after = publish(&plugin, machine.publish("stranger", &image)).await.unwrap_err();
    assert_eq!(
        (before.code(), before.message()),
        (after.code(), after.message()),
        "the same as when it was not here"
    );
    let refused = publish(&plugin, owner("b")).await.unwrap_err();
    assert!(refused.message().contains("in quarantine"), "{refused}");
    assert!(matches!(refused.code(), Code::Unauthenticated | Code::PermissionDenied), "{refused}");
    assert!(!machine.log().contains(USER.1), "no secret is logged");

    // With rights again, the one who has them makes it whole for itself.
    registry.set_user(USER);
    publish(&plugin, owner("b")).await.unwrap();
    assert_whole(&machine, "b", NAME);
    until_condition(&plugin, &machine, "a", str::is_empty).await;
    end(&plugin, &machine, &["a", "b"]).await;
}
