//! Volumes that follow a tag: what containers see of a switch, with and without propagation, over restarts and kills, beside
//! policies, credentials, collections and registries that are away. Needs root.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::{NodeGetVolumeStatsRequest, NodePublishVolumeRequest};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::admission::{reject, write_policy};
use crate::support::archive::archive;
use crate::support::container::{InContainer, Propagation, share};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const FILE: &str = "current/file";
const OTHER: &str = "current/other";

/// Lets the tag name an image whose files begin with `version`.
fn push(registry: &Registry, version: &str) {
    // Too large to be inline, so that they are objects.
    let content = |name: &str| format!("{}{name}", version.repeat(5000)).into_bytes();
    let (file, other) = (content("file"), content("other"));
    let tar = archive(&[("file", &file), ("other", &other), (&format!("only-{version}"), b"x")]);
    registry.push(&Layout::of(&Image::new(vec![tar])).reference("latest"), "team/app:1", &[]);
}

fn machine(host: &str) -> Machine {
    // An hour: nothing happens in these tests but what they ask for.
    let machine = Machine::new(&[&format!("--insecure-registry={host}"), "--follow-interval=3600"]);
    share(&machine.path().join("kubelet"));
    machine
}

fn request(machine: &Machine, pod: &str, image: &str) -> NodePublishVolumeRequest {
    let mut request = machine.publish(pod, image);
    request.volume_context.insert("follow".to_owned(), "true".to_owned());
    request
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<(), Status> {
    plugin.node.clone().node_publish_volume(request).await.map(drop)
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

async fn condition(plugin: &Plugin, machine: &Machine, pod: &str) -> (bool, String) {
    let stats = NodeGetVolumeStatsRequest {
        volume_id: format!("csi-{pod}"),
        volume_path: machine.target(pod).display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let found = plugin.node.clone().node_get_volume_stats(stats).await.unwrap().into_inner();
    let condition = found.volume_condition.unwrap();
    (condition.abnormal, condition.message)
}

/// `refresh`, whether it succeeds or not.
async fn refresh(machine: &Machine, what: &[&str]) -> (bool, Vec<Value>) {
    let arguments = [&["refresh", "--output", "json"], what].concat();
    let mut command = machine.command(&arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let list = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.success(), list)
}

/// What a program on the host reads.
fn shown(machine: &Machine, pod: &str) -> String {
    let bytes = fs::read(machine.target(pod).join(FILE)).unwrap();
    char::from(bytes[0]).to_string()
}

fn images(machine: &Machine) -> usize {
    machine.run(&["ls"])["images"].as_array().unwrap().len()
}

fn kill(plugin: &mut Plugin) {
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_the_new_image_and_what_is_open_goes_on() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let machine = machine(&registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    let target = machine.target("a");
    let mut follower = InContainer::start(&target, Propagation::HostToContainer, FILE);
    let mut private = InContainer::start(&target, Propagation::None, FILE);
    assert_eq!((follower.read(FILE), private.read(FILE)), ("1".to_owned(), "1".to_owned()));
    let (succeeded, list) = refresh(&machine, &[]).await;
    assert!(succeeded && list.len() == 1 && list[0]["problem"].is_null(), "{list:?}");
    let first = list[0]["digest"].as_str().unwrap().to_owned();

    push(&registry, "2");
    let (succeeded, list) = refresh(&machine, &[&image]).await;
    assert!(succeeded && list[0]["digest"] != first.as_str(), "{list:?}\n{}", machine.log());
    assert_eq!(shown(&machine, "a"), "2");
    assert_eq!(follower.read(FILE), "2", "opened anew");
    assert_eq!(follower.held(), "1", "what is open goes on");
    assert!(follower.read("current/only-1").contains("No such file"));
    assert_eq!(private.read(FILE), "1", "a container without propagation keeps what it has");
    // Started later, or started again.
    let mut later = InContainer::start(&target, Propagation::None, FILE);
    assert_eq!(later.read(FILE), "2");
    let (abnormal, message) = condition(&plugin, &machine, "a").await;
    assert!(!abnormal && message.contains(list[0]["digest"].as_str().unwrap()), "{message}");

    // What a container still has is not collected, although nothing here shows it any more.
    machine.run(&["prune"]);
    assert_eq!((private.read(OTHER), images(&machine)), ("1".to_owned(), 2));
    drop((private, later));
    push(&registry, "3");
    assert!(refresh(&machine, &["csi-a"]).await.0);
    assert_eq!((follower.read(FILE), follower.held()), ("3".to_owned(), "1".to_owned()));
    drop(follower);
    // The kernel takes a namespace apart when its last process has ended, not before.
    let deadline = Instant::now() + Duration::from_secs(120);
    while images(&machine) > 1 {
        assert!(Instant::now() < deadline, "nobody has the earlier ones any more");
        assert!(refresh(&machine, &[]).await.0);
        machine.run(&["prune"]);
    }
    assert_eq!(shown(&machine, "a"), "3");

    // As kubelet does it again and again; and the end.
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
    assert_eq!(refresh(&machine, &[]).await, (true, Vec::new()));
    assert!(!refresh(&machine, &["csi-a"]).await.0, "there is no such volume");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_is_shown_and_the_next_publish_brings_it_on() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let machine = machine(&registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let mut plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    let mut container = InContainer::start(&machine.target("a"), Propagation::HostToContainer, FILE);
    kill(&mut plugin);
    push(&registry, "2");
    let plugin = machine.start().await;
    assert_eq!(refresh(&machine, &[]).await, (true, Vec::new()), "whose pod and credentials are not known");
    let (abnormal, message) = condition(&plugin, &machine, "a").await;
    assert!(!abnormal && message.contains("until kubelet publishes the volume again"), "{message}");
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    assert_eq!(container.read(FILE), "1", "a publish does not switch");
    assert!(refresh(&machine, &[]).await.0);
    assert_eq!((container.read(FILE), container.held()), ("2".to_owned(), "1".to_owned()));
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

/// The record of the volume that follows, changed by `change`.
fn change_record(machine: &Machine, change: fn(&mut Value)) {
    let directory = machine.state().join("store/volumes");
    let mut changed = 0;
    for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(mut record) = serde_json::from_slice::<Value>(&fs::read(&path).unwrap()) else { continue };
        if record["request"]["follow"] == true {
            change(&mut record);
            fs::write(&path, record.to_string()).unwrap();
            changed += 1;
        }
    }
    assert_eq!(changed, 1);
}

/// Lets the record say what it says at the beginning of a switch back to the earlier image.
fn begin_switch_back(record: &mut Value) {
    let earlier = record["earlier"][0].clone();
    let now = json!({"image": record["image"], "composefs": record["composefs"]});
    record["image"] = earlier["image"].clone();
    record["composefs"] = earlier["composefs"].clone();
    record["earlier"] = json!([now]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_was_killed_is_ended() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let machine = machine(&registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let mut plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    // Another pod has the first image, mounted plainly: what is put beneath below.
    publish(&plugin, machine.publish("plain", &image)).await.unwrap();
    push(&registry, "2");
    let mut container = InContainer::start(&machine.target("a"), Propagation::HostToContainer, FILE);
    assert!(refresh(&machine, &[]).await.0);
    assert_eq!(shown(&machine, "a"), "2");

    // Killed after the record was written.
    kill(&mut plugin);
    change_record(&machine, begin_switch_back);
    let mut plugin = machine.start().await;
    assert_eq!((shown(&machine, "a"), container.read(FILE)), ("1".to_owned(), "1".to_owned()));
    assert!(machine.log().contains("ended a switch that was interrupted"));
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    assert!(refresh(&machine, &[]).await.0);
    assert_eq!((shown(&machine, "a"), container.read(FILE)), ("2".to_owned(), "2".to_owned()));

    // Killed between the two mounts.
    kill(&mut plugin);
    change_record(&machine, begin_switch_back);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(rustix::fs::CWD, machine.target("plain"), flags).unwrap();
    let beneath = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    move_mount(&clone, "", rustix::fs::CWD, machine.target("a").join("current"), beneath).unwrap();
    drop(clone);
    assert_eq!(shown(&machine, "a"), "2");
    let plugin = machine.start().await;
    assert_eq!((shown(&machine, "a"), container.read(FILE)), ("1".to_owned(), "1".to_owned()));
    let mounts = machine.published().iter().filter(|point| point.ends_with("current")).count();
    assert_eq!(mounts, 1, "one, not a stack");
    drop(container);
    unpublish(&plugin, &machine, "a").await;
    unpublish(&plugin, &machine, "plain").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_away_leaves_the_old_image_and_says_so() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let directory = tempfile::tempdir().unwrap();
    let policy = write_policy(directory.path(), &json!({"type": "insecureAcceptAnything"}));
    let mut machine = machine(&registry.host());
    machine.also(&format!("--policy={}", policy.display()));
    let image = format!("{}/team/app:1", registry.host());
    let plugin = machine.start().await;
    let mut path = request(&machine, "path", &image);
    path.volume_context.insert("path".to_owned(), "directory".to_owned());
    let missing = publish(&plugin, path).await.unwrap_err();
    assert!(missing.message().contains("directory"), "{missing}");
    unpublish(&plugin, &machine, "path").await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();

    push(&registry, "2");
    write_policy(directory.path(), &reject());
    let deadline = Instant::now() + Duration::from_secs(120);
    let list = loop {
        let (succeeded, list) = refresh(&machine, &[]).await;
        if !succeeded {
            break list;
        }
        // The policy is read again every second, and until then the new image is shown.
        assert!(Instant::now() < deadline, "the policy is not read again");
        push(&registry, "3");
    };
    let before = shown(&machine, "a");
    assert!(list[0]["problem"].as_str().unwrap().contains("polic"), "{list:?}");
    push(&registry, "4");
    assert!(!refresh(&machine, &[]).await.0);
    assert_eq!(shown(&machine, "a"), before);
    let (abnormal, message) = condition(&plugin, &machine, "a").await;
    assert!(!abnormal && message.contains("not switched"), "{message}");
    assert!(machine.log().contains("the volume goes on showing what it shows"), "{}", machine.log());

    write_policy(directory.path(), &json!({"type": "insecureAcceptAnything"}));
    let deadline = Instant::now() + Duration::from_secs(120);
    while !refresh(&machine, &[]).await.0 {
        assert!(Instant::now() < deadline, "the policy is not read again");
    }
    assert_eq!(shown(&machine, "a"), "4");
    drop(registry);
    let deadline = Instant::now() + Duration::from_secs(120);
    // It is asked several times before it is given up.
    while refresh(&machine, &[]).await.0 {
        assert!(Instant::now() < deadline, "the registry is away");
    }
    assert_eq!(shown(&machine, "a"), "4", "the registry is away");
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

fn with_secret(mut request: NodePublishVolumeRequest, config: Vec<u8>) -> NodePublishVolumeRequest {
    let config = String::from_utf8(config).unwrap();
    request.secrets = HashMap::from([(".dockerconfigjson".to_owned(), config)]);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_follows_with_his_own_credentials() {
    let registry = Registry::start(Options { user: Some(("team", "hunter-1")), ..Options::default() });
    push(&registry, "1");
    let machine = machine(&registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let plugin = machine.start().await;
    let mine = |pod: &str, password: &str| {
        with_secret(request(&machine, pod, &image), registry.docker_config(password))
    };
    publish(&plugin, mine("a", "hunter-1")).await.unwrap();
    publish(&plugin, mine("b", "hunter-1")).await.unwrap();
    push(&registry, "2");
    registry.set_user(("team", "hunter-2"));
    // Kubelet has the new Secret of one of them.
    publish(&plugin, mine("a", "hunter-2")).await.unwrap();
    let (succeeded, list) = refresh(&machine, &[]).await;
    assert!(!succeeded, "{list:?}");
    let of = |volume: &str| list.iter().find(|found| found["volume"] == volume).unwrap();
    assert!(of("csi-a")["problem"].is_null() && of("csi-b")["problem"].is_string(), "{list:?}");
    assert_eq!((shown(&machine, "a"), shown(&machine, "b")), ("2".to_owned(), "1".to_owned()));
    // That the node has the image by now makes no difference.
    let (succeeded, again) = refresh(&machine, &["csi-b"]).await;
    assert!(!succeeded && again[0]["problem"] == of("csi-b")["problem"], "{again:?}");
    publish(&plugin, mine("b", "hunter-2")).await.unwrap();
    assert!(refresh(&machine, &[]).await.0);
    assert_eq!(shown(&machine, "b"), "2");
    for text in [
        machine.log(),
        fs::read_dir(machine.state().join("store/volumes"))
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect(),
    ] {
        assert!(!text.contains("hunter-") && !text.contains("dGVhbTpodW50ZXIt"), "a secret in {text}");
    }
    unpublish(&plugin, &machine, "a").await;
    unpublish(&plugin, &machine, "b").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublish_does_not_wait_for_a_switch() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let proxy = Proxy::start(&registry.host()).await;
    let machine = machine(&proxy.address.to_string());
    let image = format!("{}/team/app:1", proxy.address);
    let plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    let tar = archive(&[("file", &crate::support::archive::noise("large", 4 << 20))]);
    registry.push(&Layout::of(&Image::new(vec![tar])).reference("latest"), "team/app:1", &[]);
    // In the middle of the new image's layer nothing comes any more.
    let held = proxy.pass(1 << 20);
    let (refreshed, ()) = tokio::join!(refresh(&machine, &[]), held);
    assert_eq!(refreshed.1[0]["asking"], true, "{refreshed:?}");
    assert_eq!(shown(&machine, "a"), "1");
    let (_, message) = condition(&plugin, &machine, "a").await;
    assert!(message.contains("is being pulled"), "{message}");
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
    assert_eq!(refresh(&machine, &[]).await.1, Vec::<Value>::new());
    proxy.throttle(0);
    // A new pod of that name joins the pull, and has the new image.
    let mut again = request(&machine, "a", &image);
    again.volume_context.insert("pullPolicy".to_owned(), "Always".to_owned());
    publish(&plugin, again).await.unwrap();
    assert_ne!(shown(&machine, "a"), "1");
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_containers_let_nothing_go_is_not_switched_for_ever() {
    let registry = Registry::start(Options::default());
    push(&registry, "0");
    let machine = machine(&registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    let mut containers = Vec::new();
    for version in b'a'..b'a' + 16 {
        containers.push(InContainer::start(&machine.target("a"), Propagation::None, FILE));
        push(&registry, &char::from(version).to_string());
        let (succeeded, list) = refresh(&machine, &[]).await;
        assert!(succeeded, "{list:?}");
    }
    containers.push(InContainer::start(&machine.target("a"), Propagation::None, FILE));
    push(&registry, "z");
    let (succeeded, list) = refresh(&machine, &[]).await;
    let problem = list[0]["problem"].as_str().unwrap_or_default();
    assert!(!succeeded && problem.contains("mountPropagation: HostToContainer"), "{list:?}");
    machine.run(&["prune"]);
    assert_eq!(containers[0].read(OTHER), "0", "nothing of it is lost");
    containers.remove(0);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !refresh(&machine, &[]).await.0 {
        assert!(Instant::now() < deadline, "one of them has let go");
    }
    assert_eq!(shown(&machine, "a"), "z");
    drop(containers);
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let machine = machine(&registry.host());
    let image = format!("{}/team/app:1", registry.host());
    let plugin = machine.start().await;
    let refused = async |change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut wanted = request(&machine, "a", &image);
        change(&mut wanted);
        publish(&plugin, wanted).await.unwrap_err()
    };
    let status = refused(&|wanted| drop(wanted.volume_context.remove("csi.storage.k8s.io/ephemeral"))).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("only an inline volume"), "{status}");
    let several = format!("[{{image: {image}, at: /}}]");
    let status = refused(&|wanted| {
        wanted.volume_context.remove("image");
        wanted.volume_context.insert("images".to_owned(), several.clone());
    })
    .await;
    assert!(status.message().contains("several images"), "{status}");
    // A pod with a user namespace.
    let pod = machine.path().join("kubelet/pods/a");
    crate::support::pod_users::write_users(&pod, 131_072);
    let status = refused(&|_| {}).await;
    assert!(
        status.message().contains("user namespace") && status.code() == Code::FailedPrecondition,
        "{status}"
    );
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();

    let off = Machine::new(&[&format!("--insecure-registry={}", registry.host())]);
    let plugin = off.start().await;
    let status = publish(&plugin, request(&off, "a", &image)).await.unwrap_err();
    assert!(status.message().contains("--follow-interval"), "{status}");
    off.assert_nothing_published();
}

/// Runs at a pace of its own, too, not only when it is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_asked_for_by_itself() {
    let registry = Registry::start(Options::default());
    push(&registry, "1");
    let mut machine = machine(&registry.host());
    machine.replace("--follow-interval=3600", "--follow-interval=30");
    let image = format!("{}/team/app:1", registry.host());
    let plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &image)).await.unwrap();
    push(&registry, "2");
    crate::support::wait::eventually("the new image is shown", || shown(&machine, "a") == "2").await;
    let said = || machine.log().contains("the volume shows another image");
    crate::support::wait::eventually("the log says so", said).await;
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}
