//! Kills between any two steps of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use composefs_csi::image::store::{Options, Steps, Store};
use composefs_csi::oci::Credentials;
use composefs_csi::pull::{Caller, ImageRequest, Images as _, PullLimits, PullPolicy, Ready};

use super::pods::*;
use crate::support::csi::store_options;
use crate::support::pulling::{accept_all, puller, request};

/// One who pulls with the library, on a disk that may fail.
async fn ensure(
    store: &Arc<Store>,
    image: &str,
    host: &str,
    who: Option<(&str, &str)>,
) -> Result<Ready, String> {
    let puller = puller(store, &[host.to_owned()], &accept_all(), PullLimits::default());
    let credentials =
        who.map_or_else(Credentials::none, |who| Credentials::parse(config(&host, who).as_bytes()).unwrap());
    let caller = Caller::Pod { namespace: None };
    let request = ImageRequest { credentials, caller, ..request(image, PullPolicy::IfNotPresent) };
    puller.ensure(&request).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_nobody_gets_more_than_his_own() {
    let (registry, _proxy) = registry().await;
    push(&registry, vec![layer("a", 5000)], "team/app:1");
    let host = registry.host();
    let image = format!("{host}/team/app:1");
    // In memory: thousands of syncs are none of the point.
    let directory = || tempfile::tempdir_in("/dev/shm").unwrap();
    let empty = directory();
    let open = |directory: &std::path::Path, steps: Steps| {
        Store::open(directory, Options { steps, ..store_options() })
    };
    let stranger = ensure(&Arc::new(open(empty.path(), Steps::default()).unwrap()), &image, &host, None)
        .await
        .unwrap_err();
    let mut kills = 0;
    for last in 0.. {
        let directory = directory();
        let taken = AtomicUsize::new(0);
        let steps = Steps::new(move |doing| {
            if taken.fetch_add(1, SeqCst) < last { Ok(()) } else { Err(std::io::Error::other(doing)) }
        });
        if let Ok(store) = open(directory.path(), steps)
            && ensure(&Arc::new(store), &image, &host, Some(ALICE)).await.is_ok()
        {
            break;
        }
        kills += 1;
        let store = Arc::new(open(directory.path(), Steps::default()).unwrap());
        assert_eq!(ensure(&store, &image, &host, None).await.unwrap_err(), stranger, "after {last} steps");
        let bob = ensure(&store, &image, &host, Some(BOB)).await.unwrap();
        assert_eq!(bob.record.names, std::slice::from_ref(&image));
        assert!(ensure(&store, &image, &host, Some(ALICE)).await.is_ok(), "after {last} steps");
        assert_eq!(ensure(&store, &image, &host, None).await.unwrap_err(), stranger, "after {last} steps");
    }
    assert!(kills > 30, "{kills} steps are too few to be all of them");
}
