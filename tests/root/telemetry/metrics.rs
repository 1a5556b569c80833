//! What the plugin exports, scraped over HTTP. And that docs/metrics.md says just that;
//! `BLESS=1 cargo test --test root telemetry` rewrites its table.

use std::path::Path;
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::NodePublishVolumeRequest;
use tonic::Code;

use super::page::{Page, Watch};
use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry, free_port};

/// A layer with one file.
fn file(name: &str, seed: &str, size: usize) -> Vec<u8> {
    archive(&[(name, &noise(seed, size))])
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<(), Code> {
    plugin.node.clone().node_publish_volume(request).await.map(drop).map_err(|status| status.code())
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_says_what_happened_and_the_documentation_what_it_means() {
    let (base, size) = (file("base", "1", 1 << 20), 1 << 20);
    let first = Layout::of(&Image::new(vec![base.clone(), file("a", "2", size)]));
    // The same content under another name, in a layer that is not the same.
    let second = Layout::of(&Image::new(vec![base, file("b", "2", size)]));
    let registry = Registry::start(Options::default());
    registry.push(&first.reference("latest"), "team/app:1", &[]);
    registry.push(&second.reference("latest"), "team/app:2", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let image = |tag: &str| format!("{}/team/app:{tag}", proxy.address);

    let watch = Watch { address: format!("127.0.0.1:{}", free_port()) };
    let machine = Machine::new(&[
        "--insecure-registry",
        &proxy.address.to_string(),
        &format!("--metrics-listen={}", watch.address),
    ]);
    let plugin = machine.start().await;
    assert_eq!(watch.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(watch.get("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(watch.get("/other").await.0, 404);

    for tag in ["1", "2"] {
        publish(&plugin, machine.publish(tag, &image(tag))).await.unwrap();
    }
    let page = watch.scrape().await;
    let fetched = page.value("fetched_bytes_total");
    assert!(fetched > 3.0 * f64::from(1 << 20) && fetched < 3.3 * f64::from(1 << 20), "{fetched}");
    assert!(fetched <= proxy.passed() as f64, "{fetched} of {} bytes that came", proxy.passed());
    let saved = |shared: &str| page.value(&format!("saved_bytes_total{{shared=\"{shared}\"}}"));
    assert!(saved("layer") > f64::from(1 << 20), "the base was fetched once: {}", saved("layer"));
    assert_eq!(saved("object"), 0.0, "what depends on single files is shown once an hour");
    assert_eq!(page.value("pull_duration_seconds_count{outcome=\"ok\"}"), 2.0);
    assert_eq!(page.value("publish_duration_seconds_count{outcome=\"ok\"}"), 2.0);
    assert_eq!(page.value("rpc_duration_seconds_count{code=\"OK\",rpc=\"NodePublishVolume\"}"), 2.0);
    assert_eq!(page.sum("published_volumes"), 2.0);
    assert_eq!(
        (page.value("store_objects"), page.value("store_bytes")),
        (0.0, 0.0),
        "as measured at the start"
    );
    assert_eq!(page.value("registry_requests_total{outcome=\"ok\",request=\"blob\"}"), 5.0, "{}", page.text);
    eventually("housekeeping has looked", async || {
        let page = watch.scrape().await;
        page.value("gc_duration_seconds_count{outcome=\"ok\"}") > 0.0
    })
    .await;

    assert_eq!(publish(&plugin, machine.publish("3", &image("3"))).await, Err(Code::NotFound));
    proxy.throttle(1 << 10);
    let third = Layout::of(&Image::new(vec![file("c", "3", size)]));
    registry.push(&third.reference("latest"), "team/app:3", &[]);
    let caller = tokio::spawn({
        let (mut node, request) = (plugin.node.clone(), machine.publish("4", &image("3")));
        async move { node.node_publish_volume(request).await.map(drop) }
    });
    eventually("a pull", async || watch.scrape().await.value("pulls_under_way") == 1.0).await;
    assert!(!caller.is_finished());
    caller.abort();
    eventually("the call counts as cancelled, and the pull goes on", async || {
        let page = watch.scrape().await;
        page.value("publish_duration_seconds_count{outcome=\"cancelled\"}") == 1.0
            && page.value("rpc_duration_seconds_count{code=\"Cancelled\",rpc=\"NodePublishVolume\"}") == 1.0
            && page.value("pulls_under_way") == 1.0
    })
    .await;
    proxy.throttle(0);
    eventually("the pull ends", async || watch.scrape().await.value("pulls_under_way") == 0.0).await;

    for tag in ["1", "2"] {
        plugin.node.clone().node_unpublish_volume(machine.unpublish(tag)).await.unwrap();
    }
    let page = watch.scrape().await;
    assert_eq!(page.value("publish_duration_seconds_count{outcome=\"not_found\"}"), 1.0);
    assert_eq!(page.sum("published_volumes"), 0.0);
    assert!(!page.text.contains("team/app"), "no image is a label");
    machine.assert_nothing_published();
    check_document(&page);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_plugin_counts_the_mounts_that_it_finds() {
    let layout = Layout::of(&Image::new(vec![file("a", "1", 1 << 16)]));
    let registry = Registry::start(Options::default());
    let reference = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let watch = Watch { address: format!("127.0.0.1:{}", free_port()) };
    let metrics = format!("--metrics-listen={}", watch.address);
    let machine = Machine::new(&["--insecure-registry", &registry.host(), &metrics]);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("a", &reference)).await.unwrap();
    drop(plugin);
    let plugin = machine.start().await;
    let page = watch.scrape().await;
    assert_eq!(page.sum("published_volumes"), 1.0);
    eventually("the store is measured", async || watch.scrape().await.value("store_objects") == 1000.0).await;
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    assert_eq!(watch.scrape().await.sum("published_volumes"), 0.0);
    machine.assert_nothing_published();
}

const BEGIN: &str = "<!-- begin: written by the test tests/root/telemetry -->\n";
const END: &str = "<!-- end -->\n";

fn check_document(page: &Page) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (_, after) = rest.split_once(END).expect("the mark where the table ends");
    let expected = format!("{before}{BEGIN}{}{END}{after}", page.table());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert_eq!(
            text, expected,
            "docs/metrics.md is out of date; run: BLESS=1 cargo test --test root telemetry"
        );
    }
}
