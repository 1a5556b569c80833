//! Follows the kernel log, the only place where the kernel reports which object failed verification at a read, and what
//! scrubbing finds.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::image::verity::VerityDigest;
use crate::node::corruption::{CorruptionWatcher, KernelReport, parse};
use crate::sys::kernel_log::KernelLog;

/// How often known corruption is checked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Passes every report about an object to `watcher`, from the first one of this boot, and every suspect that others have
/// found, until the shutdown. Without access to the log it warns once, and there are only the others' suspects; the kernel
/// still refuses the reads.
pub async fn follow(
    mut watcher: CorruptionWatcher,
    mut suspects: mpsc::Receiver<VerityDigest>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut log = KernelLog::open().inspect_err(|error| {
        tracing::warn!(
            "cannot read the kernel log ({error}), so corruption found while pods read is not reported here; \
             give the container /dev/kmsg and CAP_SYSLOG, or run `composefs-csi verify` regularly"
        );
    });
    loop {
        let hint = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(RECHECK_INTERVAL), if watcher.has_findings() => Hint::Recheck,
            Some(object) = suspects.recv() => Hint::Suspect(object),
            record = next(&mut log) => match parse(&record?) {
                Some(report) => Hint::Report(report),
                // Another message of the kernel.
                None => continue,
            },
        };
        // Checking reads whole objects from disk.
        let task = tokio::task::spawn_blocking(move || {
            let looked = match &hint {
                Hint::Report(report) => watcher.investigate(report),
                Hint::Suspect(object) => watcher.examine([*object], None),
                Hint::Recheck => watcher.recheck(),
            };
            if let Err(error) = looked {
                tracing::error!(?hint, "damaged objects cannot be examined: {error}");
            }
            watcher
        });
        watcher = task.await?;
    }
}

/// Why objects are examined.
#[derive(Debug)]
enum Hint {
    Report(KernelReport),
    Suspect(VerityDigest),
    Recheck,
}

/// The log's next record; never one of a log that cannot be read.
async fn next<E>(log: &mut Result<KernelLog, E>) -> std::io::Result<String> {
    match log {
        Ok(log) => log.next().await,
        Err(_) => std::future::pending().await,
    }
}
