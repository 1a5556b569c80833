//! Builds beside each other. Their work is a wait, which each test ends.

use std::sync::mpsc;

use super::*;
use crate::image::store::{AccessRecord, NodeKey, Options};

fn tenant(host: &str) -> Tenant {
    (host.to_owned(), AccessRecord::Anonymous)
}

fn builders(directory: &std::path::Path, memory: u64) -> Arc<Builders> {
    let store = Store::open(directory, Options::new(NodeKey::from_bytes(&[7; 32]))).unwrap();
    Arc::new(Builders::new(Arc::new(store), memory, ImageLimits::DEFAULT))
}

/// A build that says that it has begun, and ends when it is released or told to stop.
fn start(
    builders: &Arc<Builders>,
    host: &str,
) -> (tokio::sync::oneshot::Receiver<()>, mpsc::Sender<()>, tokio::task::JoinHandle<Result<bool, PullError>>)
{
    let (begin, begun) = tokio::sync::oneshot::channel();
    let (release, released) = mpsc::channel();
    let (builders, tenant) = (Arc::clone(builders), tenant(host));
    let task = tokio::spawn(async move {
        let work = move |stop: &Stop| {
            let _ = begin.send(());
            let step = std::time::Duration::from_millis(1);
            while !stop.is_stopped() && released.recv_timeout(step) == Err(mpsc::RecvTimeoutError::Timeout) {}
            Ok(stop.is_stopped())
        };
        builders.run(tenant, Vec::new(), "r.io/x:1", work).await
    });
    (begun, release, task)
}

#[tokio::test]
async fn one_tenants_builds_leave_room_for_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let builders = builders(directory.path(), 1024);
    let mut hostile: Vec<_> = (0..6).map(|_| start(&builders, "evil")).collect();
    // Any three of them, in the order in which they came to the gate.
    let mut building = 0;
    while building < 3 {
        building += hostile.iter_mut().filter_map(|(begun, ..)| begun.try_recv().ok()).count();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let (begun, release, task) = start(&builders, "good");
    begun.await.unwrap();
    release.send(()).unwrap();
    assert!(!task.await.unwrap().unwrap());
    // Those that wait are let in as the first end.
    let (released, tasks): (Vec<_>, Vec<_>) =
        hostile.into_iter().map(|(_, release, task)| (release, task)).unzip();
    drop(released);
    for task in tasks {
        assert!(!task.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_build_that_is_given_up_stops_and_then_frees_its_memory() {
    let directory = tempfile::tempdir().unwrap();
    let builders = builders(directory.path(), 0);
    let mut hostile: Vec<_> = (0..3).map(|_| start(&builders, "evil")).collect();
    for (begun, ..) in &mut hostile {
        begun.await.unwrap();
    }
    let (begun, _release, _task) = start(&builders, "evil");
    hostile[0].2.abort();
    begun.await.unwrap();
}

#[test]
fn memory_is_estimated_by_entries_and_bytes_up_to_the_limits() {
    let layer = |entries, bytes| LayerSize { entries, bytes };
    let memory = |layers: &[LayerSize]| memory_for(layers, &ImageLimits::DEFAULT);
    assert_eq!(memory(&[]), 0);
    assert_eq!(memory(&[layer(1, 100)]), 1);
    // The image that tests/image_memory.rs measures takes up to 110 MiB.
    assert_eq!(memory(&[layer(29_000, 2 << 20), layer(29_000, 2 << 20)]), 103);
    let most = memory(&[layer(u64::MAX, u64::MAX), layer(1, 1)]);
    assert_eq!(most, (((2 << 20) * 1_700) >> 20) + 1024);
}
