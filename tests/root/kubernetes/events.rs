//! Events on pods: of pulls, of refusals, of failures, and each of them once.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::NodePublishVolumeRequest;
use serde_json::{Value, json};
use tonic::Code;

use super::api::{kubeconfig, refusal};
use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::http::Server;
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Impostor};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry, free_port};
use crate::support::wait::eventually;

fn image(size: usize) -> Image {
    Image::new(vec![archive(&[("file", &noise("content", size))])])
}

fn of_pod(machine: &Machine, pod: &str, image: &str) -> NodePublishVolumeRequest {
    let mut request = machine.publish(pod, image);
    request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), "shop".to_owned());
    request
}

/// Events on pods that were written so far. What the node hears of its disk depends on the machine.
fn written(server: &Server, method: &str) -> Vec<Value> {
    let of_node = |event: &Value| event["involvedObject"]["kind"] == "Node";
    let events = server.asked().into_iter().filter(|asked| asked.method == method).map(|asked| asked.json());
    events.filter(|event| !of_node(event)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_hears_of_its_pull() {
    let server = Server::start(|asked| match asked.method.as_str() {
        "POST" => (201, asked.body.clone()),
        _ => refusal(404, "NotFound"),
    })
    .await;
    let registry = Registry::start(Options::default());
    let layout = Layout::of(&image(1 << 20));
    registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let image = format!("{}/team/app:1", proxy.address);
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine =
        Machine::new(&["--insecure-registry", &proxy.address.to_string(), "--kubernetes-events", &config]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    // A minute, if nobody lifted it.
    proxy.throttle(16 << 10);
    let call = tokio::spawn({
        let (mut node, request) = (node.clone(), of_pod(&machine, "a", &image));
        async move { node.node_publish_volume(request).await.map(drop) }
    });
    eventually("the pod hears that the pull has begun", || written(&server, "POST").len() == 1).await;
    // Its caller goes, and the next one joins the pull.
    call.abort();
    let event = written(&server, "POST").remove(0);
    assert_eq!((&event["reason"], &event["type"]), (&json!("Pulling"), &json!("Normal")));
    assert_eq!(event["reportingComponent"], "csi.composefs.dev");
    assert_eq!(event["source"]["host"], "node-1");
    assert_eq!(event["involvedObject"]["uid"], "a");
    assert_eq!(event["involvedObject"]["namespace"], "shop");
    assert!(event["message"].as_str().unwrap().contains(&image), "{event}");
    proxy.throttle(0);
    let deadline = Instant::now() + Duration::from_secs(120);
    while node.node_publish_volume(of_pod(&machine, "a", &image)).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the pod hears that the pull is done", || written(&server, "POST").len() == 2).await;
    let event = written(&server, "POST").remove(1);
    assert_eq!(event["reason"], "Pulled");
    assert!(event["message"].as_str().unwrap().contains("(1.1 MB in 1 layers, 1.0 MB of files)"), "{event}");

    assert!(proxy.passed() > 1 << 20, "fetched once, and not for the Event");
    // Nobody's pull: the image is here.
    node.node_publish_volume(of_pod(&machine, "b", &image)).await.unwrap();
    // Nothing was pulled, and nobody has refused anything.
    node.node_publish_volume(of_pod(&machine, "c", &format!("{image}-none"))).await.unwrap_err();
    eventually("the pod hears of the failure", || written(&server, "POST").len() == 3).await;
    let event = written(&server, "POST").remove(2);
    assert_eq!((&event["reason"], &event["type"]), (&json!("Failed"), &json!("Warning")));
    assert_eq!(event["involvedObject"]["uid"], "c");
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
    let layout = Layout::of(&image(1000));
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
    assert_eq!(event["involvedObject"]["uid"], "a");
    let message = event["message"].as_str().unwrap();
    let scope = format!("transports.docker[{repository:?}]");
    for part in [&image, &policy, &scope, "no signature of sha256:", "have it signed by"] {
        assert!(message.contains(part), "{part:?} is missing in {message:?}");
    }
    // Another volume of the same pod is another matter.
    let mut other = of_pod(&machine, "a", &format!("{}/team/other:1", registry.host()));
    other.volume_id = "csi-other".to_owned();
    other.target_path = machine.target("a").with_file_name("other").display().to_string();
    registry.push(&layout.reference("latest"), "team/other:1", &[]);
    node.node_publish_volume(other).await.unwrap_err();
    eventually("the other refusal is said, too", || server.asked().len() == 2).await;
    let event = server.asked()[1].json();
    assert_eq!((&event["reason"], &event["involvedObject"]["uid"]), (&json!("Refused"), &json!("a")));
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
    let layout = Layout::of(&image(1000));
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
async fn the_node_hears_once_that_no_room_can_be_made_in_its_store() {
    let server = Server::start(|asked| (201, asked.body.clone())).await;
    let layouts = [2000, 3000].map(|size| Layout::of(&image(size)));
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let address = format!("127.0.0.1:{}", free_port());
    // Every filesystem is above this mark, and all that is here is in use.
    let machine = Machine::new(&[
        "--layout-dir=/",
        "--gc-high=1",
        "--gc-low=0",
        "--metrics-listen",
        &address,
        "--kubernetes-events",
        &config,
    ]);
    let plugin = machine.start().await;
    let no_room = || {
        let posted = server.asked().into_iter().filter(|asked| asked.method == "POST");
        posted.filter(|asked| asked.json()["reason"] == "NoRoomInStore").collect::<Vec<_>>()
    };
    let rounds = async || {
        let page = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or(" 0");
            line.trim().parse::<f64>().unwrap()
        };
        let count = value("composefs_csi_gc_duration_seconds_count{outcome=\"ok\"}");
        (count, value("composefs_csi_gc_no_room"))
    };
    let mut node = plugin.node.clone();
    // A pull is followed by a round of housekeeping.
    for (number, layout) in layouts.iter().enumerate() {
        let pod = ["a", "b"][number];
        let before = rounds().await.0;
        node.node_publish_volume(of_pod(&machine, pod, &layout.reference("latest"))).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while rounds().await.0 <= before {
            assert!(Instant::now() < deadline, "no round of housekeeping: {}", machine.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        eventually("the node hears of it", || !no_room().is_empty()).await;
    }
    assert_eq!(rounds().await.1, 1.0);
    let [event] = &no_room()[..] else { panic!("{:?}", no_room()) };
    assert!(event.path.starts_with("/api/v1/namespaces/default/events"), "{}", event.path);
    let event = event.json();
    assert_eq!(
        (&event["type"], &event["involvedObject"]["kind"], &event["involvedObject"]["name"]),
        (&json!("Warning"), &json!("Node"), &json!("node-1"))
    );
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("% of it is used") && message.contains("filesystem of its own"), "{message}");
    assert_eq!(machine.log().matches("above its high mark").count(), 1, "{}", machine.log());
}
