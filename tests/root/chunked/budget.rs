//! What all layers of a node together may ask of registries while they are put together.

use std::time::Duration;

use super::registry::*;
use super::reuse::{machine, pull, whole};
use crate::support::archive::noise;
use crate::support::chunked::ChunkedLayer;

const LAYERS: usize = 5;
/// Slots for layers that one registry and credential has by default: one less than there are.
const SLOTS: usize = 3;

/// A layer of its own of which every third file changes with the version, so that each is a range of its own.
fn versioned(number: usize, version: usize) -> ChunkedLayer {
    let file = |n: usize| {
        let version = if n.is_multiple_of(3) { version } else { 0 };
        (format!("{number}/{n:02}"), noise(&format!("{number} {n} {version}"), 8_000))
    };
    layer(&(0..45).map(file).collect())
}

fn offered(registry: &ChunkedRegistry, version: usize) -> String {
    let layers: Vec<_> = (0..LAYERS).map(|number| versioned(number, version)).collect();
    registry.offer(&version.to_string(), &layers.iter().collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_all_layers_share_the_connections_of_the_node() {
    let registry = ChunkedRegistry::start(&[]).await;
    let (first, second) = (offered(&registry, 1), offered(&registry, 2));
    let expected = whole(&registry, &second);
    for (connections, lent) in [(0, 0), (4, 3), (20, 15)] {
        let node = machine(&registry, &[&format!("--range-connections={connections}")]);
        registry.delay(Duration::ZERO);
        pull(&node, &first);
        registry.cost();
        registry.delay(Duration::from_millis(100));
        let pulled = pull(&node, &second);
        assert_eq!(pulled["image"], expected["image"]);
        let (most, cost) = (registry.most_at_once(), registry.cost());
        assert_eq!((cost.whole, cost.ranges), (0, LAYERS * (2 + 15)), "{cost:?}");
        // One for each layer that has a slot, and three quarters of what is lent to all.
        assert!(most <= SLOTS + lent, "{most} with {connections}");
        assert!(lent == 0 || most > SLOTS, "{most} with {connections}");
    }
}
