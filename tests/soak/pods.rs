//! Pods that come and go: what kubelet does, and what it would see.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::NodePublishVolumeRequest;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore as _;

use crate::innocent::{is_gone, take_down};
use crate::support::driver::mounts_below;
use crate::{Soak, images};

/// How many pods a worker has.
const SLOTS: u64 = 4;

/// A pod, as far as kubelet knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// Nothing was asked for, or it is taken down.
    Empty,
    /// The plugin said that this image is mounted.
    Running(usize),
    /// It said something else, or nothing.
    Unknown(usize),
}

/// Starts and stops pods until the end, and looks at them.
pub async fn live(soak: Arc<Soak>, worker: u64, mut random: ChaCha8Rng) {
    let mut slots = [Slot::Empty; SLOTS as usize];
    while Instant::now() < soak.end {
        let at = random.next_u64() % SLOTS;
        let (pod, slot) = (name(worker, at), &mut slots[at as usize]);
        *slot = match (*slot, random.next_u32() % 10) {
            (Slot::Empty, _) => start(&soak, &pod, &mut random).await,
            (Slot::Running(image), 0..=5) => {
                check(&soak, &pod, image, true).await;
                Slot::Running(image)
            }
            // Again, as kubelet does after its own restart: a volume shows what it shows.
            (Slot::Running(image), 6) => {
                again(&soak, &pod, image).await;
                Slot::Running(image)
            }
            (Slot::Unknown(image), 0..=4) => {
                check(&soak, &pod, image, false).await;
                Slot::Unknown(image)
            }
            (Slot::Unknown(image), 5..=7) => publish(&soak, &pod, image, &mut random).await,
            (Slot::Running(_) | Slot::Unknown(_), _) => {
                take_down(&soak.node, &pod).await;
                assert!(!is_mounted(&soak.node.machine.target(&pod)), "{pod} is mounted after its end");
                soak.tally.count("pods taken down");
                Slot::Empty
            }
        };
        tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 100))).await;
    }
    for (at, slot) in slots.iter().enumerate() {
        if let Slot::Running(image) = *slot {
            check(&soak, &name(worker, at as u64), image, true).await;
        }
    }
}

/// The names of all pods.
pub fn names() -> impl Iterator<Item = String> {
    (0..crate::WORKERS).flat_map(|worker| (0..SLOTS).map(move |at| name(worker, at)))
}

fn name(worker: u64, at: u64) -> String {
    format!("pod-{worker}-{at}")
}

async fn start(soak: &Soak, pod: &str, random: &mut ChaCha8Rng) -> Slot {
    // Image 0 is the innocent's.
    let image = 1 + random.next_u32() as usize % (images::COUNT - 1);
    publish(soak, pod, image, random).await
}

async fn publish(soak: &Soak, pod: &str, image: usize, random: &mut ChaCha8Rng) -> Slot {
    let request = soak.node.machine.publish(pod, &reference(soak, image));
    // Some callers go away without a word: after 64 ms, or 16 s at most.
    let patience = Duration::from_millis(1 << (6 + random.next_u32() % 9));
    match tokio::time::timeout(patience, call(soak, request)).await {
        Ok(Ok(())) => {
            soak.tally.count("pods started");
            Slot::Running(image)
        }
        Ok(Err(status)) if is_gone(&status) => {
            soak.tally.count("publishes that the plugin's end interrupted");
            Slot::Unknown(image)
        }
        Ok(Err(status)) => {
            soak.tally.count(&format!("publishes answered {:?}", status.code()));
            let own_fault = [tonic::Code::Internal, tonic::Code::Unknown];
            assert!(!own_fault.contains(&status.code()), "{status}\n{}", soak.node.machine.log_tail());
            Slot::Unknown(image)
        }
        Err(_) => {
            soak.tally.count("callers that went away");
            Slot::Unknown(image)
        }
    }
}

/// One image of four comes from the fair registry, and each of the others always from the same bad one.
fn reference(soak: &Soak, image: usize) -> String {
    soak.registries.moody.get(image % 4).unwrap_or(&soak.registries.fair).reference(image)
}

async fn again(soak: &Soak, pod: &str, image: usize) {
    let request = soak.node.machine.publish(pod, &reference(soak, image));
    let _ = tokio::time::timeout(Duration::from_secs(10), call(soak, request)).await;
}

async fn call(soak: &Soak, request: NodePublishVolumeRequest) -> Result<(), tonic::Status> {
    soak.node.client().await.node_publish_volume(request).await.map(drop)
}

/// A mount shows the whole of its image, or is not there; and it is there if the plugin said so.
async fn check(soak: &Soak, pod: &str, image: usize, promised: bool) {
    let target = soak.node.machine.target(pod);
    let found = tokio::task::spawn_blocking(move || is_mounted(&target).then(|| images::read(&target)));
    match found.await.expect("no panic") {
        None => assert!(!promised, "{pod} has lost its mount\n{}", soak.node.machine.log_tail()),
        Some(Err(error)) => {
            panic!("{pod} cannot read image {image}: {error}\n{}", soak.node.machine.log_tail())
        }
        Some(Ok(contents)) => {
            let wanted = &soak.registries.catalogue.image(image).contents;
            assert!(
                contents == *wanted,
                "{pod} does not see image {image}\n{}",
                soak.node.machine.log_tail()
            );
            soak.tally.count("mounts read whole");
        }
    }
}

fn is_mounted(target: &Path) -> bool {
    let parent = target.parent().expect("a parent");
    mounts_below(parent).iter().any(|point| point == target)
}
