//! Builds beside each other. Their work is a wait, which each test ends.

use std::sync::mpsc;

use super::*;
use crate::image::entry::{EntryKind, LayerEntry, Meta};
use crate::image::layer::RecordWriter;
use crate::image::store::{AccessRecord, NodeKey, Options};
use crate::oci::digest::Digest;

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
        builders.run(tenant, (Vec::new(), BuiltOf::Parts), "r.io/x:1", work).await
    });
    (begun, release, task)
}

#[tokio::test]
async fn one_tenants_builds_leave_room_for_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let builders = builders(directory.path(), 1024);
    let (mut waiting, mut hostile) = (Vec::new(), Vec::new());
    for (begun, release, task) in (0..6).map(|_| start(&builders, "evil")) {
        waiting.push(begun);
        hostile.push((release, task));
    }
    // Any three: each looks at the store first, on a thread of its own.
    for _ in 0..3 {
        let (begun, _, rest) = futures_util::future::select_all(waiting).await;
        begun.unwrap();
        waiting = rest;
    }
    let (begun, release, task) = start(&builders, "good");
    begun.await.unwrap();
    release.send(()).unwrap();
    assert!(!task.await.unwrap().unwrap());
    // Those that wait are let in as the first end.
    let (releases, tasks): (Vec<_>, Vec<_>) = hostile.into_iter().unzip();
    drop(releases);
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
    let memory = |layers: &[LayerSize]| memory_for(layers, BuiltOf::Parts, &ImageLimits::DEFAULT);
    assert_eq!(memory(&[]), 0);
    assert_eq!(memory(&[layer(1, 100)]), 1);
    // The images that tests/image_memory.rs measures take up to 20 MiB, and up to 61 if they are combined.
    let layers = [layer(29_000, 2 << 20), layer(29_000, 2 << 20)];
    assert_eq!(memory(&layers), 27);
    assert_eq!(memory_for(&layers, BuiltOf::Images, &ImageLimits::DEFAULT), 64);
    let most = memory(&[layer(u64::MAX, u64::MAX), layer(1, 1)]);
    assert_eq!(most, 400 + 512);
    assert!(most << 20 <= ImageLimits::BUILD_MEMORY);
}

#[tokio::test]
async fn an_image_that_takes_more_memory_than_there_is_for_all_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let builders = builders(directory.path(), 5);
    let store = Arc::clone(&builders.store);
    let hold = store.hold();
    let mut writer = RecordWriter::new(store.layers().stage(&hold).unwrap());
    for number in 0..20_000 {
        let path = format!("{number}").into_bytes().into();
        writer.push(&LayerEntry { path, meta: Meta::default(), kind: EntryKind::Directory }).unwrap();
    }
    let diff_id = Digest::of(b"a layer");
    writer.finish().unwrap().finish(&diff_id, &Digest::of(b"its blob")).unwrap();
    let parts = vec![StoredPart { layer: diff_id, place: None }];
    let refused =
        builders.run(tenant("r.io"), (parts, BuiltOf::Parts), "r.io/x:1", |_| Ok(())).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("MiB of memory") && said.contains("raise --build-memory"), "{said}");
}
