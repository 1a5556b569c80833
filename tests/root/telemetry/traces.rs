//! Traces and the log's level, with a collector that decodes what it gets.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::archive::archive;
use crate::support::driver::{Machine, Plugin};
use crate::support::http::Server;
use crate::support::images::{Image, Layout};
use crate::support::registry::{Options, Registry, free_port};

fn image() -> (Registry, String) {
    let registry = Registry::start(Options::default());
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &[7; 100])])]));
    let reference = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    (registry, reference)
}

/// Ends the plugin as kubelet does and waits for it.
fn terminate(mut plugin: Plugin) {
    let pid = Pid::from_child(&plugin.process.0);
    kill_process(pid, Signal::TERM).unwrap();
    assert!(plugin.process.0.wait().unwrap().success());
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let pair = attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_is_a_span_with_its_pull_inside() {
    let collector = Server::start(|_| (200, Vec::new())).await;
    let (registry, reference) = image();
    let endpoint = format!("--otlp-endpoint={}/", collector.url());
    let machine = Machine::new(&["--insecure-registry", &registry.host(), "--log-level=error", &endpoint]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    node.node_publish_volume(machine.publish("a", &reference)).await.unwrap();
    node.node_publish_volume(machine.publish("b", &format!("{reference}-none"))).await.unwrap_err();
    node.node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    terminate(plugin);

    let mut spans: Vec<Span> = Vec::new();
    for asked in collector.asked() {
        assert_eq!((&*asked.method, &*asked.path), ("POST", "/v1/traces"));
        let request = ExportTraceServiceRequest::decode(&asked.body[..]).unwrap();
        for group in request.resource_spans {
            let resource = group.resource.unwrap();
            assert_eq!(text(&resource.attributes, "service.name"), Some("composefs-csi-node"));
            assert_eq!(text(&resource.attributes, "k8s.node.name"), Some("node-1"));
            spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    let publish = |volume: &str| {
        let of = |span: &&Span| {
            span.name == "NodePublishVolume" && text(&span.attributes, "volume.id") == Some(volume)
        };
        spans.iter().find(of).unwrap_or_else(|| panic!("no span of {volume} in {spans:?}"))
    };
    let done = publish("csi-a");
    assert!(text(&done.attributes, "image.digest").is_some_and(|digest| digest.starts_with("sha256:")));
    assert!(done.end_time_unix_nano > done.start_time_unix_nano);
    assert_eq!(done.status.as_ref().map_or(0, |status| status.code), 0);
    let pull = spans.iter().find(|span| span.name == "pull").unwrap();
    assert_eq!((&pull.parent_span_id, &pull.trace_id), (&done.span_id, &done.trace_id));
    let failed = publish("csi-b").status.clone().unwrap();
    assert_eq!((failed.code, &*failed.message), (2, "NotFound"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_everything_else_goes_on() {
    let (registry, reference) = image();
    let endpoint = format!("--otlp-endpoint=http://127.0.0.1:{}", free_port());
    let machine = Machine::new(&["--insecure-registry", &registry.host(), &endpoint]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    node.node_publish_volume(machine.publish("a", &reference)).await.unwrap();
    node.node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    let begun = Instant::now();
    terminate(plugin);
    // It drains for at most twenty seconds; nobody's absence adds to that.
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    assert_eq!(machine.log().matches("spans are lost").count(), 1, "{}", machine.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_follows_its_file() {
    let (registry, reference) = image();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("level");
    let level = format!("--log-level-file={}", file.display());
    let machine = Machine::new(&["--insecure-registry", &registry.host(), &level, "--log-level=error"]);
    let plugin = machine.start().await;
    assert!(!machine.log().contains("ready; serving"), "{}", machine.log());
    std::fs::write(&file, "debug\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !machine.log().contains("the log level was changed") {
        assert!(Instant::now() < deadline, "{}", machine.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut node = plugin.node.clone();
    node.node_publish_volume(machine.publish("a", &reference)).await.unwrap();
    node.node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    assert!(machine.log().contains("answered"), "a line of level debug: {}", machine.log());
}
