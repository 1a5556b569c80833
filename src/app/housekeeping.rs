//! Periodic work of a node: repair volume records, and free space before the disk is full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::room::{Notice, RoomNotices};
use crate::cluster::events::Events;
use crate::image::store::gc::Policy;
use crate::image::store::{CollectRequest, Collected, Store, StoreError};
use crate::node::mount::Mounter;
use crate::node::volume::Volumes;

/// When housekeeping runs, and what it may remove.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The longest time between two rounds.
    pub every: Duration,
    /// Which images may be removed.
    pub policy: Policy,
}

/// How often all objects are measured for the metrics. In between, the metrics follow the changes by this process.
const MEASURE_EVERY: Duration = Duration::from_secs(3600);

/// What housekeeping works on.
pub struct House {
    /// The store.
    pub store: Arc<Store>,
    /// Knows what is mounted.
    pub mounter: Arc<dyn Mounter>,
    /// Have records to be put in order.
    pub volumes: Volumes,
    /// Where the node hears of its disk, besides the log.
    pub node_events: Option<Arc<Events>>,
}

/// Runs housekeeping until the shutdown.
pub async fn keep(
    house: House,
    schedule: Schedule,
    wanted: Arc<Notify>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let House { store, mounter, volumes, node_events } = house;
    let mut measured: Option<Instant> = None;
    let mut notices = RoomNotices::default();
    loop {
        // The first round measures everything: another process may have changed the store.
        let all = measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
        if all {
            measured = Some(Instant::now());
        }
        let measured_store = Arc::clone(&store);
        tokio::task::spawn_blocking(move || measure(&measured_store, all)).await?;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            // A pull has asked for a round.
            () = wanted.notified() => {}
            () = tokio::time::sleep(schedule.every) => {}
        }
        // Before the collection, which keeps what the records need.
        match volumes.recover().await {
            Ok(found) if found.dropped > 0 => tracing::info!(?found, "volume records were put in order"),
            Ok(_) => {}
            Err(error) => tracing::error!("volume records could not be put in order: {error}"),
        }
        let (store, mounter) = (Arc::clone(&store), Arc::clone(&mounter));
        let (collected, space) = tokio::task::spawn_blocking(move || {
            (collect(&store, &*mounter, schedule.policy), store.space().ok())
        })
        .await?;
        report(&collected);
        if let Some(notice) = notices.after(&collected, space, Instant::now()) {
            say(notice, node_events.as_deref());
        }
    }
}

fn measure(store: &Store, all: bool) {
    let measured = if all { store.measure() } else { store.measure_room() };
    if let Err(error) = measured {
        tracing::warn!("the store cannot be measured, its metrics are out of date: {error}");
    }
}

fn collect(store: &Store, mounter: &dyn Mounter, policy: Policy) -> Result<Collected, StoreError> {
    let mounted = || mounter.mounted_images().map_err(|error| error.to_string());
    store.collect(&CollectRequest { policy, mounted: &mounted, dry_run: false })
}

fn report(collected: &Result<Collected, StoreError>) {
    match collected {
        Ok(done) if done.images.is_empty() && done.swept.objects == 0 => {}
        Ok(done) => tracing::info!(
            images = done.images.len(),
            objects = done.swept.objects,
            bytes = done.swept.bytes,
            "space was freed in the store"
        ),
        // Said to the operator once; this is for who looks for the round.
        Err(error) => tracing::debug!("no space was freed in the store: {error}"),
    }
}

fn say(notice: Notice, node_events: Option<&Events>) {
    let (reason, is_warning, text) = match notice {
        Notice::NoRoom(text) => ("NoRoomInStore", true, text),
        Notice::Room => ("RoomInStore", false, "the store's filesystem has room again".to_owned()),
    };
    if is_warning {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
    if let Some(events) = node_events {
        events.record_on_node(reason, is_warning, text);
    }
}
