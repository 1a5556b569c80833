//! Follows the directories of pods with volumes: kubelet writes there which users a pod with a user namespace has.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::node::volume::pod_users::FILE;
use crate::node::volume::{PodVolumes, Volumes};
use crate::sys::directory_watch::{DirectoryWatch, Seen};

/// How often pods are looked at again whose volumes could not be mapped, or which cannot be watched.
const AGAIN: Duration = Duration::from_secs(5);

/// Watches the directories that come by `pods`, and maps the volumes of their pods, until the shutdown.
pub async fn follow(
    mut pods: mpsc::Receiver<PathBuf>,
    volumes: Volumes,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut watch = DirectoryWatch::new().inspect_err(warn_about_instances).ok();
    let (mut again, mut looks) = (BTreeSet::new(), JoinSet::new());
    let mut look_again = tokio::time::interval(AGAIN);
    look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(pod) = pods.recv() => {
                // First the watch, then the look: nothing comes in between.
                if watch.as_mut().is_none_or(|watch| add(watch, &pod)) { vec![pod] } else { Vec::new() }
            }
            seen = next(watch.as_mut()) => changed(seen?, watch.as_ref()),
            Some(looked) = looks.join_next() => {
                let (pod, found): (PathBuf, PodVolumes) = looked?;
                let watched = watch.as_ref().is_some_and(|watch| watch.has(&pod));
                match found {
                    PodVolumes::Right if !watched => { again.insert(pod); }
                    PodVolumes::Wrong => { again.insert(pod); }
                    PodVolumes::Right | PodVolumes::None => { again.remove(&pod); }
                }
                continue;
            }
            _ = look_again.tick(), if !again.is_empty() => std::mem::take(&mut again).into_iter().collect(),
        };
        for pod in changed {
            let volumes = volumes.clone();
            // Side by side: another call may keep one volume for long.
            looks.spawn(async move {
                let found = volumes.map_users(&pod).await;
                (pod, found)
            });
        }
    }
}

fn warn_about_instances(error: &io::Error) {
    tracing::warn!(
        "directories of pods cannot be watched ({error}), so each is looked at every {} s, and containers of pods with a user \
         namespace start later; raise fs.inotify.max_user_instances",
        AGAIN.as_secs()
    );
}

/// Watches a pod. (The kernel only looks up a path that kubelet has just used.) Returns whether there is such a pod.
fn add(watch: &mut DirectoryWatch, pod: &Path) -> bool {
    match watch.add(pod) {
        Ok(()) => true,
        Err(Errno::NOENT | Errno::NOTDIR) => false,
        Err(errno) => {
            tracing::warn!(
                "{} cannot be watched ({errno}), so it is looked at every {} s; raise fs.inotify.max_user_watches",
                pod.display(),
                AGAIN.as_secs()
            );
            true
        }
    }
}

async fn next(watch: Option<&mut DirectoryWatch>) -> io::Result<Vec<Seen>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// The pods whose users may have come.
fn changed(seen: Vec<Seen>, watch: Option<&DirectoryWatch>) -> Vec<PathBuf> {
    if seen.contains(&Seen::Lost) {
        return watch.map(DirectoryWatch::directories).unwrap_or_default();
    }
    let pod = |seen| match seen {
        Seen::File(pod, name) if name == FILE => Some(pod),
        Seen::File(..) | Seen::Lost => None,
    };
    seen.into_iter().filter_map(pod).collect()
}
