//! The whole driver on a real kernel: the program itself, a real registry, real mounts, kubelet's calls. Needs
//! root. What it holds: one download for everybody, pulls that outlive their calls, kill -9 at any instant.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::NodePublishVolumeRequest;
use composefs_csi::oci::digest::Digest;
use tonic::{Code, Request};

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

/// How long something that must happen may take: only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A tar archive with `count` files of `size` bytes that no compression shrinks, below `directory`.
fn tar(directory: &str, count: usize, size: usize) -> Vec<u8> {
    let files: Vec<_> = (0..count).map(|number| format!("{directory}/{number}")).collect();
    let files: Vec<_> = files.into_iter().map(|name| (noise(&name, size), name)).collect();
    let members: Vec<(&str, &[u8])> = files.iter().map(|(content, name)| (&**name, &**content)).collect();
    archive(&members)
}

/// A registry behind a proxy, with one image of two layers of about `megabytes` each.
async fn served(megabytes: usize) -> (Registry, Proxy, String) {
    let layout = Layout::of(&Image::new(vec![
        tar("first", megabytes * 8, 128 << 10),
        tar("second", megabytes * 8, 128 << 10),
    ]));
    let registry = Registry::start(Options::default());
    registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let reference = format!("{}/team/app:1", proxy.address);
    (registry, proxy, reference)
}

fn machine(proxy: &Proxy) -> Machine {
    Machine::new(&["--insecure-registry", &proxy.address.to_string()])
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<(), tonic::Status> {
    plugin.node.clone().node_publish_volume(request).await.map(drop)
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

fn assert_whole(root: &Path, megabytes: usize) {
    for directory in ["first", "second"] {
        let files: Vec<_> =
            std::fs::read_dir(root.join(directory)).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), megabytes * 8);
        for file in files {
            let number = file.file_name().unwrap().to_str().unwrap().to_owned();
            let content = std::fs::read(&file).unwrap();
            assert_eq!(&content[..32], Digest::of(format!("{directory}/{number}").as_bytes()).as_bytes());
            assert_eq!(content.len(), 128 << 10);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pods_one_digest_one_download() {
    let (_registry, proxy, reference) = served(4).await;
    let machine = machine(&proxy);
    let plugin = machine.start().await;
    let (a, b) = tokio::join!(
        publish(&plugin, machine.publish("a", &reference)),
        publish(&plugin, machine.publish("b", &reference)),
    );
    a.unwrap();
    b.unwrap();
    let image = 8 << 20;
    assert!(proxy.passed() < image + image / 10, "{} bytes for an image of {image}", proxy.passed());
    for pod in ["a", "b"] {
        assert_whole(&machine.target(pod), 4);
    }
    let inode = |pod: &str| {
        std::fs::metadata(machine.target(pod).join("first/0")).map(|m| (m.dev(), m.ino())).unwrap()
    };
    assert_eq!(inode("a"), inode("b"), "two pods see the same inodes");

    let before = proxy.passed();
    publish(&plugin, machine.publish("c", &reference)).await.unwrap();
    assert_eq!(proxy.passed(), before, "IfNotPresent asks nobody for what is here");
    for pod in ["a", "b", "c"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_publish_leaves_the_pull_running_and_the_retry_joins_it() {
    let (_registry, proxy, reference) = served(4).await;
    let machine = machine(&proxy);
    let plugin = machine.start().await;
    // Two layers of four MiB, a minute each, until the limit is lifted.
    proxy.throttle(64 << 10);
    let mut hasty = Request::new(machine.publish("a", &reference));
    hasty.set_timeout(Duration::from_secs(2));
    let status = plugin.node.clone().node_publish_volume(hasty).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    // A call whose caller goes away without a word, once it is not the one before that has the volume.
    loop {
        let call = publish(&plugin, machine.publish("a", &reference));
        match tokio::time::timeout(Duration::from_millis(500), call).await {
            Err(_) => break,
            Ok(answer) => assert_eq!(answer.unwrap_err().code(), Code::Aborted),
        }
    }
    assert!(machine.published().is_empty(), "nothing is half-mounted");
    let (between, deadline) = (proxy.passed(), Instant::now() + PATIENCE);
    while proxy.passed() == between {
        assert!(Instant::now() < deadline, "the pull does not go on while nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.throttle(0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match publish(&plugin, machine.publish("a", &reference)).await {
            Ok(()) => break,
            // The dropped call may still hold the volume for a moment.
            Err(status) => assert!(
                matches!(status.code(), Code::Aborted | Code::DeadlineExceeded) && Instant::now() < deadline,
                "{status}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_whole(&machine.target("a"), 4);
    let image = 8 << 20;
    assert!(proxy.passed() < image + image / 5, "{} bytes: something was fetched twice", proxy.passed());
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_pull_the_next_start_goes_on() {
    // An image that no other test mounts meanwhile: a collection spares what is mounted from whatever store.
    let (_registry, proxy, reference) = served(5).await;
    let machine = machine(&proxy);
    // One layer after the other, so that the first is whole when the second is in the middle.
    let mut plugin = machine.start().await;
    proxy.throttle(2 << 20);
    let waiting = tokio::spawn({
        let (node, request) = (plugin.node.clone(), machine.publish("a", &reference));
        async move { node.clone().node_publish_volume(request).await }
    });
    while proxy.passed() < 5 << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    assert!(waiting.await.unwrap().is_err());
    assert!(machine.published().is_empty());
    proxy.throttle(0);

    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &reference)).await.unwrap();
    assert_whole(&machine.target("a"), 5);
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
    drop(plugin);
    // What the killed pull left is gone with the rest: no object is without an image.
    machine.run(&["prune"]);
    let listing = machine.run(&["ls"]);
    assert_eq!((listing["images"].as_array().unwrap().len(), &listing["objects"]), (0, &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_publish_at_any_instant_kubelet_gets_its_way() {
    let layout = Layout::of(&Image::new(vec![tar("first", 20, 1 << 10), tar("second", 20, 1 << 10)]));
    let parent = layout.path().parent().unwrap().display().to_string();
    let machine = Machine::new(&["--layout-dir", &parent]);
    let reference = layout.reference("latest");
    let mut plugin = machine.start().await;
    publish(&plugin, machine.publish("first", &reference)).await.unwrap();
    for round in 0..24u64 {
        let pod = format!("pod-{round}");
        let waiting = tokio::spawn({
            let (node, request) = (plugin.node.clone(), machine.publish(&pod, &reference));
            async move { node.clone().node_publish_volume(request).await }
        });
        tokio::time::sleep(Duration::from_micros(round * 150)).await;
        plugin.process.0.kill().unwrap();
        plugin.process.0.wait().unwrap();
        let _ = waiting.await.unwrap();
        let target = machine.target(&pod);
        if !machine.published().contains(&target) && target.exists() {
            assert_eq!(
                std::fs::read_dir(&target).unwrap().count(),
                0,
                "half a mount at {}",
                target.display()
            );
        }
        // The mounts of other pods do not care.
        assert!(machine.target("first").join("first/0").exists());
        plugin = machine.start().await;
        if round % 2 == 0 {
            publish(&plugin, machine.publish(&pod, &reference)).await.unwrap();
            assert_eq!(std::fs::read(target.join("first/0")).unwrap().len(), 1 << 10);
        }
        unpublish(&plugin, &machine, &pod).await;
        assert!(!target.exists());
    }
    unpublish(&plugin, &machine, "first").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_publishes_leave_nothing_behind() {
    let layout = Layout::of(&Image::new(vec![tar("first", 20, 1 << 10)]));
    let parent = layout.path().parent().unwrap().display().to_string();
    let machine = Machine::new(&["--layout-dir", &parent]);
    let reference = layout.reference("latest");
    let plugin = machine.start().await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", plugin.process.0.id())).unwrap().count();
    publish(&plugin, machine.publish("warm", &reference)).await.unwrap();
    unpublish(&plugin, &machine, "warm").await;
    let before = descriptors();
    for round in 0..1000 {
        let pod = format!("pod-{}", round % 7);
        publish(&plugin, machine.publish(&pod, &reference)).await.unwrap();
        unpublish(&plugin, &machine, &pod).await;
    }
    machine.assert_nothing_published();
    // One or two may be on their way out.
    assert!(descriptors() <= before + 2, "{before} descriptors became {}", descriptors());
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_are_fetched_once_by_pulls_at_the_same_time() {
    let base = tar("base", 32, 128 << 10);
    let mut layout = Layout::new();
    layout.add(&Image::new(vec![base.clone(), tar("a", 1, 1 << 10)]), "a");
    layout.add(&Image::new(vec![base, tar("b", 1, 1 << 10)]), "b");
    let registry = Registry::start(Options::default());
    for tag in ["a", "b"] {
        registry.push(&layout.reference(tag), &format!("team/app:{tag}"), &[]);
    }
    let proxy = Proxy::start(&registry.host()).await;
    let machine = machine(&proxy);
    let plugin = machine.start().await;
    let image = |tag: &str| format!("{}/team/app:{tag}", proxy.address);
    let (a, b) = tokio::join!(
        publish(&plugin, machine.publish("a", &image("a"))),
        publish(&plugin, machine.publish("b", &image("b"))),
    );
    a.unwrap();
    b.unwrap();
    let base = 4 << 20;
    assert!(proxy.passed() < base + base / 5, "{} bytes for a shared layer of {base}", proxy.passed());
    assert!(machine.target("a").join("a/0").exists() && machine.target("b").join("base/31").exists());
    for pod in ["a", "b"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_beside_the_plugin_and_never_take_what_it_needs() {
    let (_registry, proxy, reference) = served(1).await;
    let machine = machine(&proxy);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &reference)).await.unwrap();
    let other = Layout::of(&Image::new(vec![tar("other", 3, 1 << 10)]));
    let pulled = machine.run(&["pull", &other.reference("latest")]);
    assert!(pulled["fetched_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let target = machine.path().join("by-hand");
    std::fs::create_dir(&target).unwrap();
    machine.run(&["mount", &other.reference("latest"), &target.display().to_string(), "--path", "other"]);
    assert!(target.join("0").exists());

    let pruned = machine.run(&["prune"]);
    assert_eq!(pruned["images"].as_array().unwrap().len(), 0, "both images are in use: {pruned}");
    let listing = machine.run(&["ls"]);
    assert_eq!(listing["images"].as_array().unwrap().iter().filter(|i| i["mounted"] == true).count(), 2);

    // Least recently used first: a publish and an unpublish both count as use.
    let records = || {
        let records = std::fs::read_dir(machine.state().join("store/images")).unwrap();
        records.map(|record| record.unwrap().path()).collect::<Vec<_>>()
    };
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let age = || {
        for record in records() {
            std::fs::File::open(record).unwrap().set_modified(long_ago).unwrap();
        }
    };
    let fresh = || {
        let fresh =
            |record: &std::path::PathBuf| std::fs::metadata(record).unwrap().modified().unwrap() > long_ago;
        records().iter().filter(|record| fresh(record)).count()
    };
    age();
    publish(&plugin, machine.publish("b", &reference)).await.unwrap();
    assert_eq!(fresh(), 1);
    age();
    unpublish(&plugin, &machine, "b").await;
    assert_eq!(fresh(), 1);

    machine.run(&["unmount", &target.display().to_string()]);
    let pruned = machine.run(&["prune"]);
    assert_eq!(pruned["images"].as_array().unwrap().len(), 1, "{pruned}");
    assert_whole(&machine.target("a"), 1);
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

/// Two releases of the chart on one node are told apart by their state directories, or told off.
#[tokio::test(flavor = "multi_thread")]
async fn one_plugin_for_one_state_directory() {
    let machine = Machine::new(&[]);
    let plugin = machine.start().await;
    let endpoint = format!("--endpoint=unix://{}", machine.path().join("other.sock").display());
    let second = machine.command(&["node", "--node-id", "node-1", &endpoint]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("another node plugin works in"), "{said}");
    drop(plugin);
    machine.start().await;
}

/// Many clusters reach registries through a proxy only, which the environment names as everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used() {
    let (_registry, proxy, _) = served(1).await;
    // A name that nobody can resolve. A registry answers what is asked of it as of a proxy, too (RFC 9112, 3.2.2).
    let machine = Machine::new(&["--insecure-registry", "registry.invalid"]);
    let pull = |except: &str| {
        let mut command = machine.command(&["pull", "registry.invalid/team/app:1"]);
        let address = format!("http://{}", proxy.address);
        command.env("HTTP_PROXY", address).env("NO_PROXY", except).output().unwrap()
    };
    let refused = pull("registry.invalid,10.0.0.0/8");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("registry.invalid"), "{said}");
    assert_eq!(proxy.passed(), 0);
    let pulled = pull("10.0.0.0/8");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    assert!(proxy.passed() > 2 << 20, "{}", proxy.passed());
}
