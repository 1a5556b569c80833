//! What befalls the node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore as _;
use rustix::process::Signal;

use crate::disk::Fill;
use crate::registry::{BAD, Temper};
use crate::{Soak, images};

const DAY: i64 = 86_400;

/// One thing after the other until the end, and then peace.
pub async fn rage(soak: Arc<Soak>, mut random: ChaCha8Rng) {
    while Instant::now() < soak.end {
        let event = random.next_u32() % 16;
        let moody = &soak.registries.moody[random.next_u32() as usize % soak.registries.moody.len()];
        match event {
            0..=4 => {
                let temper = BAD[random.next_u32() as usize % BAD.len()];
                moody.be(temper);
                soak.tally.count(&format!("times a registry became {temper:?}"));
            }
            5 | 6 => moody.be(Temper::Fair),
            7 => {
                soak.tally.count("kill -9");
                soak.node.restart(Signal::KILL).await;
            }
            8 => {
                soak.tally.count("restarts");
                soak.node.restart(Signal::TERM).await;
            }
            9 => full_disk(&soak, Fill::Bytes, &mut random).await,
            10 => full_disk(&soak, Fill::Inodes, &mut random).await,
            11 => {
                let days = i64::from(random.next_u32() % 800) - 400;
                soak.node.set_clock(days * DAY);
                soak.tally.count("clocks set");
            }
            12 => command(&soak, &["prune"]).await,
            13 => command(&soak, &["prune", "--watermark"]).await,
            14 => command(&soak, &["verify", "--repair"]).await,
            _ => {
                let image = 1 + random.next_u32() as usize % (images::COUNT - 1);
                command(&soak, &["pull", &soak.registries.fair.reference(image)]).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 2_000))).await;
    }
    soak.node.disk.relieve();
    soak.node.set_clock(0);
    for registry in soak.registries.all() {
        registry.be(Temper::Fair);
    }
}

async fn full_disk(soak: &Soak, what: Fill, random: &mut ChaCha8Rng) {
    soak.tally.count(&format!("times the disk had no {what:?}"));
    soak.node.disk.fill(what);
    tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 3_000))).await;
    // A plugin that starts now must start.
    if random.next_u32().is_multiple_of(3) {
        soak.node.restart(Signal::KILL).await;
    }
    if random.next_u32().is_multiple_of(3) {
        command(soak, &["prune"]).await;
    }
    soak.node.disk.relieve();
}

/// An operator's command, beside the plugin. It may fail, for example on a full disk; it must end.
async fn command(soak: &Soak, arguments: &[&str]) {
    let mut command = tokio::process::Command::from(soak.node.machine.command(arguments));
    let output = tokio::time::timeout(Duration::from_secs(120), command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).expect("the program");
    let verdict = if output.status.success() { "done" } else { "refused" };
    soak.tally.count(&format!("{} {verdict}", arguments[0]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
}
