//! What the plugin costs a node on which nothing happens, before and after it had much to do: memory of its own, and
//! how often it wakes. Needs root. All that is resident is judged in the end-to-end suite, for the program in its image.
//!
//! A test binary of its own, so that no other test runs meanwhile: what others mount is written to the kernel's log, and each
//! line there wakes the plugin.
//!
//! `COMPOSEFS_CSI_TEST_PROGRAM=target/x86_64-unknown-linux-gnu/release/composefs-csi cargo test --test idle --
//! --nocapture` measures what `make image` builds and releases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::time::Duration;

use serde_json::json;

#[path = "support/mod.rs"]
mod support;

use support::archive::archive;
use support::driver::{Machine, Plugin};
use support::images::{Image, Layout};
use support::process::{Memory, memory, processor_ticks, threads, voluntary_switches, woken_since};
use support::registry::free_port;

/// Files of the image: those of a large one, so that its tree takes some times what may stay.
const FILES: u32 = 50_000;
/// Pods that mount it.
const PODS: usize = 30;
/// How much of what a pull took may stay, in KiB.
const KEPT: u64 = 4 * 1024;
/// How long, how often, and how many times the plugin may be woken in the quietest of these moments.
const MOMENT: Duration = Duration::from_secs(2);
const MOMENTS: u32 = 10;
const WAKES: u64 = 4;

/// Files that differ from each other, and are too large to lie inline in the image.
fn files() -> Vec<u8> {
    let path = |number| format!("usr/share/package-{:05}/some-file-name-{number:07}.txt", number / 50);
    let files: Vec<_> = (0..FILES).map(|number| (path(number), format!("{number:0200}"))).collect();
    let members: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), content.as_bytes())).collect();
    archive(&members)
}

/// With everything that a chart can turn on and that needs no cluster to start.
fn machine() -> (Machine, String) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut machine = Machine::new(&["--kubernetes-events"]);
    let config = machine.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&config, text.to_string()).unwrap();
    machine.also(&format!("--kubeconfig={}", config.display()));
    machine.also(&format!("--metrics-listen={address}"));
    machine.also(&format!("--log-level-file={}", machine.path().join("level").display()));
    (machine, address)
}

/// Memory and threads, once what a call leaves behind for a moment is gone: tokio keeps idle threads for ten seconds. The
/// number of threads is no sign of it: what is looked at every 15 seconds makes one again.
async fn settled(what: &str, plugin: &Plugin) -> Memory {
    tokio::time::sleep(Duration::from_secs(25)).await;
    let pid = plugin.process.0.id();
    let memory = memory(pid);
    println!("idle: {what}: KiB {memory:?}, {} threads", threads(pid));
    memory
}

#[tokio::test]
async fn memory_of_a_pull_is_given_back_and_nothing_wakes_for_nothing() {
    let layout = Layout::of(&Image::new(vec![files()]));
    let (mut machine, address) = machine();
    machine.also(&format!("--layout-dir={}", layout.path().display()));
    let plugin = machine.start().await;
    let scrape = async || reqwest::get(format!("http://{address}/metrics")).await.unwrap();
    scrape().await;
    let before = settled("started", &plugin).await;

    let mut node = plugin.node.clone();
    let image = layout.reference("latest");
    for pod in 0..PODS {
        let request = machine.publish(&format!("pod-{pod}"), &image);
        node.node_publish_volume(request).await.unwrap();
    }
    scrape().await;
    let after = settled("after the pull, with all volumes", &plugin).await;
    let needed = after.peak - before.resident;
    assert!(needed > 2 * KEPT, "the pull took {needed} KiB, too few to show that they are given back");
    let kept = after.anonymous.saturating_sub(before.anonymous);
    assert!(kept <= KEPT, "{kept} of {needed} KiB are kept; at most {KEPT} are wanted");

    quiet(&plugin).await;
    for pod in 0..PODS {
        node.node_unpublish_volume(machine.unpublish(&format!("pod-{pod}"))).await.unwrap();
    }
    machine.assert_nothing_published();
}

/// Counts how often the plugin wakes. Others on this machine may write to the kernel's log, which wakes it too: the
/// quietest moments count.
async fn quiet(plugin: &Plugin) {
    let pid = plugin.process.0.id();
    let (all, ticks) = (voluntary_switches(pid), processor_ticks(pid));
    let mut least = u64::MAX;
    for _ in 0..MOMENTS {
        let before = voluntary_switches(pid);
        tokio::time::sleep(MOMENT).await;
        least = least.min(woken_since(&before, pid));
    }
    println!(
        "idle: woken {} times and {} ticks of 10 ms used in {:?}; {least} times in the quietest {MOMENT:?}",
        woken_since(&all, pid),
        processor_ticks(pid) - ticks,
        MOMENT * MOMENTS,
    );
    assert!(least <= WAKES, "woken {least} times in {MOMENT:?}; at most {WAKES} are wanted");
}
