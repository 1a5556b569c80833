//! Watches: what there is, and then every change.

use std::fmt::Debug;
use std::pin::pin;

use futures_util::StreamExt as _;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event, ListSemantic};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{image_prefetches, prefetch};
use crate::cluster::{Cluster, chain};
use crate::prefetch::Change;

/// Objects of a kind that are known at the most.
const MOST: usize = 50_000;

/// What a watch tells of objects that became `T`.
#[derive(Debug)]
pub(super) enum Told<T> {
    /// All that there are.
    All(Vec<T>),
    /// A new or changed one.
    Set(T),
    /// One that has gone.
    Gone(T),
}

/// Which list a watch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// What the API server has at hand: cheap for it, however many ask at the same time.
    AtHand,
    /// The newest state, page by page.
    Newest,
}

/// Follows the objects of `api` until the shutdown, or until nobody listens. `read` says what becomes of an object; what
/// becomes nothing is left out. Failures are logged and tried again without end.
pub(super) async fn follow<K, T, C>(
    (what, api, start): (&'static str, Api<K>, Start),
    read: fn(K) -> Option<T>,
    tell: fn(Told<T>) -> C,
    changes: mpsc::Sender<C>,
    shutdown: CancellationToken,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = match start {
        Start::AtHand => Config::default().list_semantic(ListSemantic::Any),
        Start::Newest => Config::default(),
    };
    let mut events = pin!(watcher::watcher(api, config).default_backoff());
    let (mut all, mut failing) = (Vec::new(), false);
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        let told = match event {
            // The stream has no end of its own.
            None => return shutdown.cancelled().await,
            Some(Err(error)) => {
                if !failing {
                    tracing::warn!("{what} cannot be watched; it is tried again: {}", chain(&error));
                }
                failing = true;
                continue;
            }
            Some(Ok(Event::Init)) => {
                all.clear();
                continue;
            }
            Some(Ok(Event::InitApply(object))) => {
                let is_room = all.len() < MOST;
                all.extend(read(object).filter(|_| is_room));
                continue;
            }
            Some(Ok(Event::InitDone)) => Some(Told::All(std::mem::take(&mut all))),
            Some(Ok(Event::Apply(object))) => read(object).map(Told::Set),
            Some(Ok(Event::Delete(object))) => read(object).map(Told::Gone),
        };
        failing = false;
        if let Some(told) = told
            && changes.send(tell(told)).await.is_err()
        {
            return shutdown.cancelled().await;
        }
    }
}

/// Follows the ImagePrefetches of all namespaces.
pub(crate) async fn prefetches<C: From<Change>>(
    cluster: Cluster,
    start: Start,
    changes: mpsc::Sender<C>,
    shutdown: CancellationToken,
) {
    let api: Api<DynamicObject> = Api::all_with(cluster.0, &image_prefetches());
    let tell = |told| {
        let change = match told {
            Told::All(all) => Change::All(all),
            Told::Set(prefetch) => Change::Set(Box::new(prefetch)),
            Told::Gone(prefetch) => Change::Gone(prefetch.uid),
        };
        C::from(change)
    };
    follow(("ImagePrefetches", api, start), prefetch, tell, changes, shutdown).await;
}
