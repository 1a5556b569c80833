//! Follows the kernel log, the only place where the kernel reports which object failed verification at a read, and what
//! scrubbing finds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::image::store::Store;
use crate::image::verity::VerityDigest;
use crate::node::corruption::{CorruptionWatcher, KernelReport, parse};
use crate::node::mount::Mounter;
use crate::sys::kernel_log::KernelLog;

/// How often known corruption is checked again, and looked for that others have found.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Objects that are examined at a time.
const SUSPECTS_MAX: usize = 256;

/// Who is concerned with what is found.
pub struct Concerned {
    /// The store.
    pub store: Arc<Store>,
    /// What shows its images.
    pub mounter: Arc<dyn Mounter>,
    /// Notified when something is damaged.
    pub repairs: Arc<Notify>,
}

/// Passes every report about an object to `watcher`, from the first one of this boot, and every suspect that others have
/// found, until the shutdown. Without access to the log it warns once, and there are only the others' suspects; the kernel
/// still refuses the reads.
pub async fn follow(
    mut watcher: CorruptionWatcher,
    concerned: Concerned,
    mut suspects: mpsc::Receiver<VerityDigest>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut log = KernelLog::open().inspect_err(|error| {
        tracing::warn!(
            "cannot read the kernel log ({error}), so corruption found while pods read is not reported here; \
             give the container /dev/kmsg and CAP_SYSLOG, or run `composefs-csi verify` regularly"
        );
    });
    let mut rechecks = tokio::time::interval(RECHECK_INTERVAL);
    rechecks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let hint = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            // The first one at once: what was found before a restart.
            _ = rechecks.tick() => Hint::Recheck,
            Some(object) = suspects.recv() => {
                // Those that wait, too: who has them is found by reading all records once.
                let others = std::iter::from_fn(|| suspects.try_recv().ok());
                Hint::Suspects(std::iter::once(object).chain(others).take(SUSPECTS_MAX).collect())
            }
            record = next(&mut log) => match parse(&record?) {
                Some(report) => Hint::Report(report),
                // Another message of the kernel.
                None => continue,
            },
        };
        // Checking reads whole objects from disk.
        let (store, mounter) = (Arc::clone(&concerned.store), Arc::clone(&concerned.mounter));
        let task = tokio::task::spawn_blocking(move || {
            let looked = match &hint {
                Hint::Report(report) => watcher.investigate(report),
                Hint::Suspects(objects) => watcher.examine(objects.iter().copied(), None),
                Hint::Recheck => watcher.recheck(),
            };
            if let Err(error) = looked {
                tracing::error!(?hint, "damaged objects cannot be examined: {error}");
            }
            refresh(&store, &*mounter);
            watcher
        });
        watcher = task.await?;
        if watcher.has_findings() {
            concerned.repairs.notify_one();
        }
    }
}

/// Lets the mounts of images that were repaired of late see their new objects.
fn refresh(store: &Store, mounter: &dyn Mounter) {
    let refreshed = store.healed().map_err(|error| error.to_string()).and_then(|healed| {
        let Some(healed) = healed else { return Ok(()) };
        mounter.refresh(&healed.images).map_err(|error| error.to_string())?;
        store.forget_healed(&healed).map_err(|error| error.to_string())
    });
    if let Err(error) = refreshed {
        tracing::warn!("mounts may show what was damaged until their pods restart: {error}");
    }
}

/// Why objects are examined.
#[derive(Debug)]
enum Hint {
    Report(KernelReport),
    Suspects(Vec<VerityDigest>),
    Recheck,
}

/// The log's next record; never one of a log that cannot be read.
async fn next<E>(log: &mut Result<KernelLog, E>) -> std::io::Result<String> {
    match log {
        Ok(log) => log.next().await,
        Err(_) => std::future::pending().await,
    }
}
