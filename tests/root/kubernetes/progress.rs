//! The Event of a pull says how far the pull is: the same Event, now and then, and also after a crash of the plugin. How
//! often over an hour and over many pulls is tested by a clock of its own, in `node::volume::pod_events::pace`.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::{kubeconfig, refusal};
use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::http::{Asked, Server};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};
use crate::support::wait::eventually;

/// An API server that keeps Events by their names, as the real one does.
async fn api_server() -> Server {
    let names = Mutex::new(BTreeSet::new());
    Server::start(move |asked| match asked.method.as_str() {
        "POST" if !names.lock().unwrap().insert(name_of(&asked.json())) => refusal(409, "AlreadyExists"),
        "POST" => (201, asked.body.clone()),
        "PATCH" => (200, asked.body.clone()),
        _ => refusal(404, "NotFound"),
    })
    .await
}

fn name_of(event: &Value) -> String {
    event["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn of_pulls(server: &Server, method: &str) -> Vec<Asked> {
    let asked = server.asked().into_iter().filter(|asked| asked.method == method);
    let about = |asked: &Asked| match method {
        "POST" => asked.json()["reason"] == "Pulling",
        _ => asked.json()["message"].as_str().is_some_and(|text| text.starts_with("pulling image ")),
    };
    asked.filter(about).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_tells_how_far_a_pull_is_also_after_a_crash() {
    let server = api_server().await;
    let registry = Registry::start(Options::default());
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &noise("content", 32 << 20))])]));
    registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let image = format!("{}/team/app:1", proxy.address);
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine =
        Machine::new(&["--insecure-registry", &proxy.address.to_string(), "--kubernetes-events", &config]);
    let mut plugin = machine.start().await;
    let publish = |plugin: &crate::support::driver::Plugin| {
        let mut request = machine.publish("a", &image);
        request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), "shop".to_owned());
        let mut node = plugin.node.clone();
        tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) })
    };
    // On each of several connections.
    proxy.throttle(64 << 10);
    let waiting = publish(&plugin);
    eventually("the pull is said", || of_pulls(&server, "POST").len() == 1).await;
    let said = Instant::now();
    let first = of_pulls(&server, "POST").remove(0).json();
    assert_eq!(first["count"], 1);
    eventually("how far it is", || !of_pulls(&server, "PATCH").is_empty()).await;
    assert!(said.elapsed() > Duration::from_secs(4), "not before five seconds");
    eventually("how far it is, again", || of_pulls(&server, "PATCH").len() == 2).await;
    assert!(said.elapsed() > Duration::from_secs(14), "and then not before ten");
    let updates = of_pulls(&server, "PATCH");
    for (number, update) in updates.iter().enumerate() {
        let path = format!("/api/v1/namespaces/shop/events/{}", name_of(&first));
        assert!(update.path.starts_with(&path), "{}", update.path);
        assert_eq!(update.json()["count"], json!(number + 2));
    }
    let here = |update: &Asked| {
        let text = update.json()["message"].as_str().unwrap().to_owned();
        let told = regex::Regex::new(
            r"^pulling image \S+ \(\d+\.\d MB in 1 layers\): (\d+\.\d) MB here, ([\d.]+) kB/s",
        )
        .unwrap();
        let told = told.captures(&text).unwrap_or_else(|| panic!("{text}"));
        assert!(text.contains("; waiting for "), "{text}");
        told[1].parse::<f64>().unwrap()
    };
    assert!(here(&updates[0]) < here(&updates[1]) && here(&updates[1]) < 30.0, "{updates:?}");
    let text = updates[1].json()["message"].as_str().unwrap().to_owned();
    assert!(text.contains(" left; waiting"), "a steady pull has an end in sight: {text}");

    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    waiting.await.unwrap().unwrap_err();
    let plugin = machine.start().await;
    let waiting = publish(&plugin);
    eventually("the Event is found again", || of_pulls(&server, "PATCH").len() == 3).await;
    let posted = of_pulls(&server, "POST");
    assert_eq!(posted.len(), 2);
    assert_eq!(name_of(&posted[1].json()), name_of(&first), "the same one");
    let found = &of_pulls(&server, "PATCH")[2];
    assert!(found.path.contains(&name_of(&first)) && found.json().get("count").is_none(), "{found:?}");
    proxy.throttle(0);
    waiting.await.unwrap().unwrap();
    let pulled = || server.asked().iter().filter(|asked| asked.json()["reason"] == "Pulled").count();
    eventually("the end is said", || pulled() == 1).await;
}
