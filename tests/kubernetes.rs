//! What the program does with the API server besides reading pull secrets: Events on pods, the startup taint,
//! annotations of claims. The API server is scripted; registry and mounts are real. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::controller_client::ControllerClient;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{CreateVolumeRequest, GetCapacityRequest, NodePublishVolumeRequest};
use serde_json::{Value, json};
use tonic::Code;

mod support {
    pub mod csi;
    pub mod driver;
    pub mod http;
    pub mod images;
    pub mod impostor;
    pub mod proxy;
    pub mod registry;
    pub mod tools;
}

use support::csi::{capability, context, try_connect};
use support::driver::Machine;
use support::http::{Asked, Server};
use support::images::{Image, Layout};
use support::impostor::{Answer, Impostor};
use support::proxy::Proxy;
use support::registry::{Options, Registry, Running};

fn tar(seed: u32, size: usize) -> Vec<u8> {
    let mut state = seed;
    let noise = std::iter::repeat_with(|| {
        // xorshift32: bytes that no compression shrinks.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    });
    let content: Vec<u8> = noise.flatten().take(size).collect();
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "file", &content[..]).unwrap();
    archive.into_inner().unwrap()
}

fn kubeconfig(directory: &Path, server: &Server) -> String {
    let path = directory.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server.url()}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&path, text.to_string()).unwrap();
    format!("--kubeconfig={}", path.display())
}

fn answer(status: u16, object: &Value) -> (u16, Vec<u8>) {
    (status, object.to_string().into_bytes())
}

fn refusal(code: u16, reason: &str) -> (u16, Vec<u8>) {
    answer(code, &json!({"kind":"Status","apiVersion":"v1","status":"Failure","reason":reason,"code":code}))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn of_pod(machine: &Machine, pod: &str, image: &str) -> NodePublishVolumeRequest {
    let mut request = machine.publish(pod, image);
    for (key, value) in [("pod.namespace", "shop"), ("pod.uid", &*format!("uid-{pod}"))] {
        request.volume_context.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
    }
    request
}

/// Events written so far, by reason.
fn written(server: &Server, method: &str) -> Vec<Value> {
    server.asked().iter().filter(|asked| asked.method == method).map(Asked::json).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_hears_of_its_pull() {
    let server = Server::start(|asked| match asked.method.as_str() {
        "POST" => (201, asked.body.clone()),
        _ => refusal(404, "NotFound"),
    })
    .await;
    let registry = Registry::start(Options::default());
    let layout = Layout::of(&Image::new(vec![tar(1, 1 << 20)]));
    registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let image = format!("{}/team/app:1", proxy.address);
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine =
        Machine::new(&["--insecure-registry", &proxy.address.to_string(), "--kubernetes-events", &config]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    proxy.throttle(256 << 10);
    let mut hasty = tonic::Request::new(of_pod(&machine, "a", &image));
    hasty.set_timeout(Duration::from_secs(2));
    node.node_publish_volume(hasty).await.unwrap_err();
    eventually("the pod hears that the pull has begun", || written(&server, "POST").len() == 1).await;
    let event = written(&server, "POST").remove(0);
    assert_eq!((&event["reason"], &event["type"]), (&json!("Pulling"), &json!("Normal")));
    assert_eq!(event["reportingComponent"], "csi.composefs.dev");
    assert_eq!(event["source"]["host"], "node-1");
    assert_eq!(event["involvedObject"]["uid"], "uid-a");
    assert_eq!(event["involvedObject"]["namespace"], "shop");
    assert!(event["message"].as_str().unwrap().contains(&image), "{event}");
    proxy.throttle(0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.node_publish_volume(of_pod(&machine, "a", &image)).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the pod hears that the pull is done", || written(&server, "POST").len() == 2).await;
    let event = written(&server, "POST").remove(1);
    assert_eq!(event["reason"], "Pulled");
    assert!(event["message"].as_str().unwrap().contains("1.1 MB fetched"), "{event}");

    assert!(proxy.passed() > 1 << 20, "fetched once, and not for the Event");
    // Nobody's pull: the image is here.
    node.node_publish_volume(of_pod(&machine, "b", &image)).await.unwrap();
    // Nothing was pulled, and nobody has refused anything.
    node.node_publish_volume(of_pod(&machine, "c", &format!("{image}-none"))).await.unwrap_err();
    eventually("the pod hears of the failure", || written(&server, "POST").len() == 3).await;
    let event = written(&server, "POST").remove(2);
    assert_eq!((&event["reason"], &event["type"]), (&json!("Failed"), &json!("Warning")));
    assert_eq!(event["involvedObject"]["uid"], "uid-c");
    assert!(event["message"].as_str().unwrap().contains(&format!("{image}-none was not found")), "{event}");
    for pod in ["a", "b"] {
        node.node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(written(&server, "POST").len(), 3, "{:?}", written(&server, "POST"));
}

/// A policy by which images of `repository` must be signed; its file.
fn signatures_for(repository: &str, directory: &Path) -> String {
    let curve = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    let key = openssl::ec::EcKey::generate(&curve).unwrap();
    fs::write(directory.join("release.pub"), key.public_key_to_pem().unwrap()).unwrap();
    let signed = json!([{"type": "sigstoreSigned", "keyPath": "release.pub"}]);
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {repository: signed}},
    });
    let file = directory.join("policy.json");
    fs::write(&file, policy.to_string()).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_refuses_is_an_event_of_each_volume() {
    let server = Server::start(|asked| (201, asked.body.clone())).await;
    let registry = Registry::start(Options::default());
    let layout = Layout::of(&Image::new(vec![tar(1, 1000)]));
    let image = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let directory = tempfile::tempdir().unwrap();
    let repository = format!("{}/team/app", registry.host());
    let policy = signatures_for(&repository, directory.path());
    let config = kubeconfig(directory.path(), &server);
    let machine = Machine::new(&[
        "--insecure-registry",
        &registry.host(),
        "--kubernetes-events",
        &config,
        "--policy",
        &policy,
    ]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    // As kubelet does, which never gives up.
    for _ in 0..4 {
        let status = node.node_publish_volume(of_pod(&machine, "a", &image)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    }
    eventually("the refusal is said", || !server.asked().is_empty()).await;
    let event = server.asked()[0].json();
    assert_eq!((&event["reason"], &event["type"]), (&json!("Refused"), &json!("Warning")));
    assert_eq!(event["reportingComponent"], "csi.composefs.dev");
    assert_eq!(event["involvedObject"]["uid"], "uid-a");
    let message = event["message"].as_str().unwrap();
    let scope = format!("transports.docker[{repository:?}]");
    for part in [&image, &policy, &scope, "no signature of sha256:", "let it be signed by"] {
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    // Another volume of the same pod is another matter.
    let mut other = of_pod(&machine, "a", &format!("{}/team/other:1", registry.host()));
    other.volume_id = "csi-other".to_owned();
    other.target_path = machine.target("a-other").display().to_string();
    registry.push(&layout.reference("latest"), "team/other:1", &[]);
    node.node_publish_volume(other).await.unwrap_err();
    eventually("the other refusal is said, too", || server.asked().len() == 2).await;
    let event = server.asked()[1].json();
    assert_eq!((&event["reason"], &event["involvedObject"]["uid"]), (&json!("Refused"), &json!("uid-a")));
    assert!(event["message"].as_str().unwrap().contains("team/other:1"), "{event}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.asked().len(), 2, "repetitions only count: {:?}", server.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_said_once_and_no_event_fails_a_publish() {
    // The API server takes the first Event and then nothing any more.
    let events = AtomicUsize::new(0);
    let server = Server::start(move |asked| match events.fetch_add(1, Ordering::SeqCst) {
        0 => (201, asked.body.clone()),
        _ => refusal(403, "Forbidden"),
    })
    .await;
    let registry = Registry::start(Options { user: Some(("u", "p")), ..Options::default() });
    let layout = Layout::of(&Image::new(vec![tar(1, 1000)]));
    let image = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine = Machine::new(&["--insecure-registry", &registry.host(), "--kubernetes-events", &config]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    for _ in 0..3 {
        let status = node.node_publish_volume(of_pod(&machine, "a", &image)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    eventually("the refusal is said", || server.asked().len() == 1).await;
    let event = server.asked()[0].json();
    assert_eq!((&event["reason"], &event["type"]), (&json!("Refused"), &json!("Warning")));
    let status = node.node_publish_volume(of_pod(&machine, "b", &image)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    eventually("the log says it, once", || machine.log().contains("Events cannot be written")).await;
    let mut allowed = of_pod(&machine, "d", &image);
    let config = String::from_utf8(registry.docker_config("p")).unwrap();
    allowed.secrets.insert(".dockerconfigjson".into(), config);
    node.node_publish_volume(allowed).await.unwrap();
    node.node_unpublish_volume(machine.unpublish("d")).await.unwrap();
    assert_eq!(machine.log().matches("Events cannot be written").count(), 1, "{}", machine.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_limits_requests_is_an_event_with_the_time_of_the_next_try() {
    let server = Server::start(|asked| (201, asked.body.clone())).await;
    // One wants a wait that a call can spend, and then has no such image; the other wants a long one.
    let first = AtomicUsize::new(0);
    let brief = Impostor::start(move |_| match first.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::status(429).with("retry-after", "2"),
        _ => Answer::status(404),
    })
    .await;
    let strict = Impostor::start(|_| Answer::status(429).with("retry-after", "900")).await;
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let (brief_host, strict_host) = (brief.address.to_string(), strict.address.to_string());
    let machine = Machine::new(&[
        "--insecure-registry",
        &brief_host,
        "--insecure-registry",
        &strict_host,
        "--kubernetes-events",
        &config,
    ]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    let image = format!("{brief_host}/team/app:1");
    let status = node.node_publish_volume(of_pod(&machine, "a", &image)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    eventually("the wait and the failure are said", || server.asked().len() == 2).await;
    let said = |at: usize| {
        let event = server.asked()[at].json();
        assert_eq!(event["type"], "Warning");
        (event["reason"].as_str().unwrap().to_owned(), event["message"].as_str().unwrap().to_owned())
    };
    let (reason, message) = said(0);
    assert_eq!(reason, "RateLimited");
    let parts = [&*brief_host, &image, "limits the rate of requests", "the next try comes in ", "a mirror"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(said(1).0, "Failed");

    let image = format!("{strict_host}/team/app:1");
    for _ in 0..3 {
        let status = node.node_publish_volume(of_pod(&machine, "b", &image)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    eventually("the limit is said", || server.asked().len() == 3).await;
    let (reason, message) = said(2);
    assert_eq!(reason, "RateLimited");
    let parts = [&*strict_host, &image, "asked again in 900 s at the earliest", "a mirror"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(strict.asked("/v2/"), 1, "it is not asked before");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.asked().len(), 3, "repetitions only count");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_startup_taint_goes_when_the_driver_is_registered() {
    let taints = json!([
        {"key": "other", "effect": "NoSchedule"},
        {"key": "csi.composefs.dev/agent-not-ready", "effect": "NoExecute"},
    ]);
    let (seen, patches) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shown = taints.clone();
    let server = Server::start(move |asked| {
        let meta = json!({"name": "node-1"});
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/api/v1/nodes/node-1") => {
                answer(200, &json!({"apiVersion":"v1","kind":"Node","metadata":meta,"spec":{"taints":shown}}))
            }
            ("GET", "/apis/storage.k8s.io/v1/csinodes/node-1") => {
                let drivers = match seen.fetch_add(1, Ordering::SeqCst) {
                    0 => return refusal(404, "NotFound"),
                    1 => json!([]),
                    _ => json!([{"name": "csi.composefs.dev", "nodeID": "node-1"}]),
                };
                let kind = json!({"apiVersion":"storage.k8s.io/v1","kind":"CSINode","metadata":meta,"spec":{"drivers":drivers}});
                answer(200, &kind)
            }
            // Somebody else was faster the first time.
            ("PATCH", "/api/v1/nodes/node-1") => match patches.fetch_add(1, Ordering::SeqCst) {
                0 => refusal(422, "Invalid"),
                _ => answer(200, &json!({"apiVersion":"v1","kind":"Node","metadata":meta})),
            },
            _ => refusal(404, "NotFound"),
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(&["--startup-taint", &kubeconfig(directory.path(), &server)]);
    let _plugin = machine.start().await;
    eventually("the taint is gone", || machine.log().contains("the startup taint was removed")).await;
    let patches: Vec<_> = server.asked().into_iter().filter(|asked| asked.method == "PATCH").collect();
    assert_eq!(patches.len(), 2);
    assert_eq!(patches[1].content_type.as_deref(), Some("application/json-patch+json"));
    assert_eq!(
        patches[1].json(),
        json!([
            {"op": "test", "path": "/spec/taints", "value": taints},
            {"op": "replace", "path": "/spec/taints", "value": [taints[0]]},
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_may_name_its_image() {
    let registry = Registry::start(Options { user: Some(("u", "p")), ..Options::default() });
    let layout = Layout::of(&Image::new(vec![tar(1, 1000)]));
    let image = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let annotated = image.clone();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/api/v1/namespaces/shop/persistentvolumeclaims/models" => {
            let annotations = json!({"csi.composefs.dev/image": annotated, "csi.composefs.dev/path": "/"});
            let metadata = json!({"name": "models", "namespace": "shop", "annotations": annotations});
            let kind =
                json!({"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":metadata});
            answer(200, &kind)
        }
        _ => refusal(404, "NotFound"),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let child = Command::new(env!("CARGO_BIN_EXE_composefs-csi"))
        .args(["controller", "--insecure-registry", &registry.host(), "--pvc-annotations"])
        .arg(kubeconfig(directory.path(), &server))
        .arg(format!("--endpoint=unix://{}", socket.display()))
        .arg(format!("--state-dir={}", directory.path().join("state").display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    let channel = loop {
        match try_connect(&socket).await {
            Ok(channel) => break channel,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut controller = ControllerClient::new(channel);
    let create = |name: &str, claim: &str, parameters: &[(&str, &str)]| {
        let mut request = CreateVolumeRequest {
            name: name.to_owned(),
            volume_capabilities: vec![capability(Mode::MultiNodeReaderOnly)],
            parameters: context(parameters),
            ..CreateVolumeRequest::default()
        };
        let config = String::from_utf8(registry.docker_config("p")).unwrap();
        request.secrets.insert(".dockerconfigjson".to_owned(), config);
        request.parameters.insert("csi.storage.k8s.io/pvc/name".to_owned(), claim.to_owned());
        request.parameters.insert("csi.storage.k8s.io/pvc/namespace".to_owned(), "shop".to_owned());
        request
    };
    let volume = controller.create_volume(create("pvc-1", "models", &[])).await.unwrap();
    let volume = volume.into_inner().volume.unwrap();
    assert!(volume.volume_context["image"].starts_with(&format!("{image}@sha256:")), "{volume:?}");

    let status =
        controller.create_volume(create("pvc-2", "models", &[("image", "r.io/x:1")])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("annotation \"csi.composefs.dev/image\""), "{status}");
    let status = controller.create_volume(create("pvc-3", "gone", &[("image", &image)])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");

    let ask = |mode| GetCapacityRequest { volume_capabilities: vec![capability(mode)], ..Default::default() };
    let capacity = controller.get_capacity(ask(Mode::MultiNodeReaderOnly)).await.unwrap().into_inner();
    assert_eq!(capacity.available_capacity, i64::MAX);
    let capacity = controller.get_capacity(ask(Mode::MultiNodeMultiWriter)).await.unwrap().into_inner();
    assert_eq!(capacity.available_capacity, 0);
}
