//! What a node does now and then: put volume records in order, make room before the disk is full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::image::store::gc::Policy;
use crate::image::store::{CollectRequest, Collected, Store, StoreError};
use crate::kind::Kind;
use crate::node::mount::Mounter;
use crate::node::volume::Volumes;

/// When and how much.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How often at least.
    pub every: Duration,
    /// Which images may go.
    pub policy: Policy,
}

/// How often every object is looked at for the metrics. In between they follow what this process does.
const MEASURE_EVERY: Duration = Duration::from_secs(3600);

/// Keeps house until the shutdown.
pub async fn keep(
    store: Arc<Store>,
    mounter: Arc<dyn Mounter>,
    volumes: Volumes,
    schedule: Schedule,
    wanted: Arc<Notify>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut measured: Option<Instant> = None;
    loop {
        let all = measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
        if all {
            measured = Some(Instant::now());
        }
        let looked_at = Arc::clone(&store);
        tokio::task::spawn_blocking(move || measure(&looked_at, all)).await?;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = wanted.notified() => {}
            () = tokio::time::sleep(schedule.every) => {}
        }
        match volumes.recover().await {
            Ok(found) if found.dropped > 0 => tracing::info!(?found, "volume records were put in order"),
            Ok(_) => {}
            Err(error) => tracing::error!("volume records could not be put in order: {error}"),
        }
        let (store, mounter) = (Arc::clone(&store), Arc::clone(&mounter));
        let collected =
            tokio::task::spawn_blocking(move || collect(&store, &*mounter, schedule.policy)).await?;
        report(collected);
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

fn report(collected: Result<Collected, StoreError>) {
    match collected {
        Ok(done) if done.images.is_empty() && done.swept.objects == 0 => {}
        Ok(done) => tracing::info!(
            images = done.images.len(),
            objects = done.swept.objects,
            bytes = done.swept.bytes,
            "room was made in the store"
        ),
        // Pulls come first; the next round tries again.
        Err(error) if error.kind() == Kind::Busy => tracing::info!("no room was made for now: {error}"),
        Err(error) => tracing::error!("no room could be made in the store: {error}"),
    }
}
