//! Prefetching: the real node plugin and the real controller, a real registry, and a stand-in that keeps the objects.

use std::fs;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use super::api::kubeconfig;
use super::stand_in::{GROUP, StandIn};
use crate::support::archive::{archive, noise};
use crate::support::artifacts::Artifact;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry, Running};
use crate::support::wait::eventually;

const SECRET: &str = "/api/v1/namespaces/shop/secrets/pull";
const PATIENT: usize = 1 << 20;

/// A node, the controller, and what they talk to.
struct World {
    api: StandIn,
    registry: Registry,
    proxy: Proxy,
    machine: Machine,
    kubeconfig: String,
    controllers: Vec<Running>,
    /// How many controllers were started.
    started: usize,
}

impl World {
    async fn new(more: &[&str]) -> Self {
        let registry = Registry::start(Options { user: Some(("u", "p")), ..Options::default() });
        let proxy = Proxy::start(&registry.host()).await;
        let api = StandIn::start().await;
        let labels = json!({"kubernetes.io/hostname": "node-1", "gpu": "yes"});
        api.put("/api/v1/nodes/node-1", json!({"metadata": {"labels": labels}}));
        api.put(SECRET, json!({"data": {".dockerconfigjson": credentials(&proxy)}}));
        let mut machine = Machine::new(more);
        machine.also(&format!("--insecure-registry={}", proxy.address));
        let kubeconfig = kubeconfig(machine.path(), &api.server);
        machine.also("--image-prefetch");
        machine.also(&kubeconfig);
        let (controllers, started) = (Vec::new(), 0);
        let mut world = Self { api, registry, proxy, machine, kubeconfig, controllers, started };
        world.start_controller();
        world
    }

    /// Another controller beside those that run.
    fn start_controller(&mut self) {
        let name = format!("controller-{}", self.started);
        self.started += 1;
        let place = |end: &str| self.machine.path().join(format!("{name}{end}"));
        let controller = Command::new(env!("CARGO_BIN_EXE_composefs-csi"))
            .args(["controller", "--image-prefetch", &self.kubeconfig])
            .arg(format!("--endpoint=unix://{}", place(".sock").display()))
            .arg(format!("--state-dir={}", place("").display()))
            .stdin(Stdio::null())
            .stderr(fs::File::create(place(".log")).unwrap())
            .spawn()
            .unwrap();
        self.controllers.push(Running(controller));
    }

    /// Pushes an image with one file of noise.
    fn push(&self, tag: &str) -> String {
        let layout = Layout::of(&Image::new(vec![archive(&[("file", &noise(tag, PATIENT))])]));
        self.registry.push(&layout.reference("latest"), &format!("team/app:{tag}"), &[]);
        format!("{}/team/app:{tag}", self.proxy.address)
    }

    fn wish(&self, name: &str, images: &[&str], more: Value) {
        self.wish_parts(name, images.iter().map(|image| json!({"reference": image})).collect(), more);
    }

    fn wish_parts(&self, name: &str, images: Vec<Value>, more: Value) {
        let mut spec = json!({"images": images, "pullSecrets": [{"name": "pull"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object =
            json!({"apiVersion": "csi.composefs.dev/v1alpha1", "kind": "ImagePrefetch", "spec": spec});
        self.api.put(&path(name), object);
    }

    /// The entry of the node's report that is about an image.
    fn entry(&self, image: &str) -> Value {
        let report = self.api.get(&format!("{GROUP}/nodeimagecaches/node-1")).unwrap_or_default();
        let entries = report["status"]["entries"].as_array().cloned().unwrap_or_default();
        entries.into_iter().find(|entry| entry["image"] == image).unwrap_or_default()
    }

    async fn reports(&self, image: &str, field: &str, value: &str) {
        let what = format!("{field} of {image} is {value}");
        eventually(&what, || self.entry(image)[field] == value).await;
    }

    async fn is_complete(&self, name: &str) {
        self.is_complete_in(name, 1).await;
    }

    /// The same, of a certain generation or a later one.
    async fn is_complete_in(&self, name: &str, generation: u64) {
        let holds = || {
            let object = self.api.get(&path(name)).unwrap_or_default();
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_of = |c: &Value| c["observedGeneration"].as_u64().is_some_and(|of| of >= generation);
            conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True" && is_of(c))
        };
        eventually(&format!("{name} is complete"), holds).await;
    }

    /// How many images prefetches keep.
    fn kept(&self) -> usize {
        fs::read_dir(self.machine.state().join("store/prefetched")).unwrap().count()
    }

    /// A pod of the namespace, with the same Secret.
    async fn publish(&self, plugin: &Plugin, pod: &str, image: &str) {
        self.publish_with(plugin, pod, image, &[]).await;
    }

    async fn publish_with(&self, plugin: &Plugin, pod: &str, image: &str, attributes: &[(&str, &str)]) {
        let mut request = self.machine.publish(pod, image);
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        request.volume_context.extend(attributes);
        request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), "shop".to_owned());
        let decoded = base64::engine::general_purpose::STANDARD.decode(credentials(&self.proxy)).unwrap();
        request.secrets.insert(".dockerconfigjson".to_owned(), String::from_utf8(decoded).unwrap());
        plugin.node.clone().node_publish_volume(request).await.unwrap();
    }
}

fn path(name: &str) -> String {
    format!("{GROUP}/namespaces/shop/imageprefetches/{name}")
}

/// As a Secret has them.
fn credentials(proxy: &Proxy) -> String {
    let engine = base64::engine::general_purpose::STANDARD;
    let auths = json!({"auths": {proxy.address.to_string(): {"auth": engine.encode("u:p")}}});
    engine.encode(auths.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_starts_warm_and_what_is_not_wished_any_more_goes() {
    let world = World::new(&[]).await;
    let (one, two) = (world.push("1"), world.push("2"));
    let plugin = world.machine.start().await;
    world.wish("models", &[&one, &two], json!({"nodeSelector": {"gpu": "yes"}}));
    world.wish("elsewhere", &[&one], json!({"nodeSelector": {"gpu": "no"}}));
    world.is_complete("models").await;
    let status = world.api.get(&path("models")).unwrap()["status"].clone();
    assert_eq!(status["nodes"]["ready"], 1, "{status}");
    assert_eq!(status["images"][0]["reference"], one);
    assert!(status["images"][1]["digest"].as_str().unwrap().starts_with("sha256:"));
    let elsewhere = world.api.get(&path("elsewhere")).unwrap()["status"].clone();
    assert_eq!((elsewhere["nodes"]["wanted"].clone(), world.kept()), (json!(0), 2), "{elsewhere}");

    // No collection takes it, and its pod needs no byte of a layer.
    let pruned = world.machine.run(&["prune"]);
    assert_eq!(pruned["images"].as_array().map_or(0, Vec::len), 0, "{pruned}");
    let before = world.proxy.passed();
    world.publish(&plugin, "a", &one).await;
    let passed = world.proxy.passed() - before;
    assert!(passed < PATIENT as u64 / 2, "{passed} bytes for a pod that starts warm");
    plugin.node.clone().node_unpublish_volume(world.machine.unpublish("a")).await.unwrap();

    // One image is not wished any more, and then none.
    world.wish("models", &[&two], json!({}));
    eventually("one is kept", || world.kept() == 1).await;
    world.api.remove(&path("models"));
    eventually("none is kept", || world.kept() == 0).await;
    world.machine.run(&["prune"]);
    let left = world.machine.run(&["ls"]);
    assert!(!left.to_string().contains("team/app"), "{left}");
    drop(plugin);
    world.machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_keep_what_is_wished_and_nothing_else() {
    let world = World::new(&[]).await;
    let (one, two) = (world.push("1"), world.push("2"));
    let plugin = world.machine.start().await;
    world.wish("stays", &[&one], json!({}));
    world.wish("goes", &[&two], json!({}));
    world.is_complete("stays").await;
    world.is_complete("goes").await;
    assert_eq!(world.kept(), 2);
    drop(plugin);
    // While the node is down, one goes, the registry as well, and the report is lost.
    world.api.remove(&path("goes"));
    world.api.remove(&format!("{GROUP}/nodeimagecaches/node-1"));
    world.api.forbid(SECRET, true);
    let plugin = world.machine.start().await;
    eventually("the other is let go", || world.kept() == 1).await;
    world.reports(&one, "state", "Ready").await;
    drop(plugin);
    // A node that prefetches no more keeps nothing.
    let mut machine = world.machine;
    machine.replace("--image-prefetch", "--pull-wait=60");
    let _plugin = machine.start().await;
    let kept = || fs::read_dir(machine.state().join("store/prefetched")).unwrap().count();
    eventually("nothing is kept", || kept() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_said_and_tried_again() {
    let world = World::new(&[]).await;
    let (image, gone) = (world.push("1"), format!("{}/team/app:none", world.proxy.address));
    let _plugin = world.machine.start().await;
    world.api.forbid(SECRET, true);
    world.wish("secret", &[&image], json!({}));
    world.reports(&image, "reason", "SecretForbidden").await;
    let message = world.entry(&image)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("resourceNames [pull]") && message.contains("namespace shop"), "{message}");
    world.api.forbid(SECRET, false);
    world.reports(&image, "state", "Ready").await;

    world.wish("gone", &[&gone], json!({"backoffLimit": 0}));
    world.reports(&gone, "state", "Failed").await;
    assert_eq!(world.entry(&gone)["reason"], "NotFound");
    let listed = || {
        let object = world.api.get(&path("gone")).unwrap();
        object["status"]["failures"][0]["node"] == "node-1" && object["status"]["nodes"]["failed"] == 1
    };
    eventually("the failure is listed", listed).await;
    world.wish("layout", &["oci:/etc"], json!({}));
    world.reports("oci:/etc", "reason", "Denied").await;
    let log = world.machine.log();
    assert!(!log.contains(&credentials(&world.proxy)) && !log.contains("\"p\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespaces_policy_and_the_disk_decide() {
    let policies = tempfile::tempdir().unwrap();
    let (all, own) = (policies.path().join("all.json"), policies.path().join("own"));
    fs::create_dir(&own).unwrap();
    fs::write(&all, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    fs::write(own.join("shop.json"), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    let policy = [format!("--policy={}", all.display()), format!("--policy-dir={}", own.display())];
    let world = World::new(&[&policy[0], &policy[1]]).await;
    let image = world.push("1");
    let plugin = world.machine.start().await;
    world.wish("models", &[&image], json!({"backoffLimit": 0}));
    world.reports(&image, "reason", "RefusedByPolicy").await;
    assert_eq!(world.kept(), 0);
    drop(plugin);

    let world = World::new(&["--gc-high=1", "--gc-low=1"]).await;
    let image = world.push("1");
    let _plugin = world.machine.start().await;
    world.wish("models", &[&image], json!({"backoffLimit": 0}));
    world.reports(&image, "reason", "NoSpace").await;
    assert!(world.proxy.passed() < PATIENT as u64 / 2, "nothing was fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_starts_warm_and_another_one_fetches_what_is_missing() {
    let world = World::new(&[]).await;
    let mut layout = Layout::new();
    let pushed = Artifact::new("application/vnd.cncf.model.manifest.v1+json")
        .model_file("int4/weights", false, &noise("int4", PATIENT))
        .model_file("int8/weights", false, &noise("int8", PATIENT))
        .model_file("config.json", false, b"{}")
        .add(&mut layout, "model");
    world.registry.push(&pushed, "team/app:model", &["--preserve-digests"]);
    let model = format!("{}/team/app:model", world.proxy.address);
    let one = |include: &str| vec![json!({"reference": model, "include": [include, "config.json"]})];
    let shards = |bytes: u64| (bytes + PATIENT as u64 / 2) / PATIENT as u64;
    let passed = || world.proxy.passed();

    let plugin = world.machine.start().await;
    let before = passed();
    world.wish_parts("models", one("int4"), json!({}));
    world.is_complete("models").await;
    assert_eq!((shards(passed() - before), world.kept()), (1, 1), "one of the two shards");
    let status = world.api.get(&path("models")).unwrap()["status"].clone();
    assert_eq!(status["images"][0]["bytes"], PATIENT + 2, "{status}");

    // The same choice is here, and stays: its order and form do not matter.
    world.machine.run(&["prune"]);
    let before = passed();
    world.publish_with(&plugin, "same", &model, &[("include", "./config.json\nint4/")]).await;
    assert_eq!(shards(passed() - before), 0, "a pod that starts warm");
    assert_eq!(fs::read(world.machine.target("same").join("int4/weights")).unwrap(), noise("int4", PATIENT));
    assert!(!world.machine.target("same").join("int8").exists());
    // Another one lacks a shard, and the whole then nothing.
    world.publish_with(&plugin, "both", &model, &[("include", "int*")]).await;
    assert_eq!(shards(passed() - before), 1, "only what is missing");
    world.publish(&plugin, "whole", &model).await;
    assert_eq!(shards(passed() - before), 1, "nothing is missing");
    for pod in ["same", "both", "whole"] {
        plugin.node.clone().node_unpublish_volume(world.machine.unpublish(pod)).await.unwrap();
    }
    world.machine.run(&["prune"]);
    drop(plugin);

    // The choice is kept over a restart, for which nothing is asked.
    world.api.remove(&format!("{GROUP}/nodeimagecaches/node-1"));
    world.api.forbid(SECRET, true);
    let plugin = world.machine.start().await;
    world.reports(&model, "state", "Ready").await;
    world.api.forbid(SECRET, false);
    // Another choice takes its place.
    let before = passed();
    world.wish_parts("models", one("int8"), json!({}));
    world.is_complete_in("models", 2).await;
    assert_eq!((shards(passed() - before), world.kept()), (1, 1));
    world.machine.run(&["prune"]);
    world.publish_with(&plugin, "again", &model, &[("include", "int8\nconfig.json")]).await;
    assert_eq!(shards(passed() - before), 1);
    plugin.node.clone().node_unpublish_volume(world.machine.unpublish("again")).await.unwrap();

    // What is no choice of the image says so, and is not tried again.
    for pattern in ["[", "int2/*"] {
        world.wish_parts("models", one(pattern), json!({}));
        world.reports(&model, "reason", "InvalidChoice").await;
        eventually("it has failed", || world.entry(&model)["state"] == "Failed").await;
        let message = world.entry(&model)["message"].as_str().unwrap().to_owned();
        assert!(message.contains(pattern), "{message}");
        world.wish_parts("models", one("int8"), json!({}));
        world.reports(&model, "state", "Ready").await;
    }
}

/// Both come to the same status; none writes what the other has written, and one is enough.
#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_do_not_fight() {
    let mut world = World::new(&[]).await;
    world.start_controller();
    let (one, two) = (world.push("1"), world.push("2"));
    let _plugin = world.machine.start().await;
    world.wish("models", &[&one], json!({}));
    world.is_complete("models").await;
    // A node without a plugin, which both see, and which goes.
    let wanted = |count: u64| world.api.get(&path("models")).unwrap()["status"]["nodes"]["wanted"] == count;
    world.api.put("/api/v1/nodes/node-2", json!({"metadata": {"labels": {}}}));
    eventually("the node is wanted", || wanted(2)).await;
    world.api.remove("/api/v1/nodes/node-2");
    eventually("the node is not wanted", || wanted(1)).await;
    world.is_complete("models").await;
    let settled = world.api.get(&path("models")).unwrap();
    // Long enough for several rounds of both: another prefetch is brought by both, and one by each alone.
    world.wish("both", &[&two], json!({}));
    world.is_complete("both").await;
    drop(world.controllers.remove(0));
    world.wish("second", &[&two], json!({}));
    world.is_complete("second").await;
    world.start_controller();
    drop(world.controllers.remove(0));
    world.wish("third", &[&one], json!({}));
    world.is_complete("third").await;
    assert_eq!(world.api.get(&path("models")).unwrap(), settled, "nobody has written it again");
    let status = &settled["status"];
    assert_eq!((&status["nodes"]["ready"], &status["nodes"]["silent"]), (&json!(1), &json!(0)), "{status}");
}
