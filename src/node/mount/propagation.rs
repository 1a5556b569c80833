//! Whether mounts below kubelet's directory reach the kubelet, looked at once, at the start.
//!
//! A container has a mount namespace of its own. What it mounts is seen outside only if the mount below is shared with
//! the host (`mountPropagation: Bidirectional`); otherwise each publish succeeds, and each pod sees an empty directory.
//! On a host where no mount is shared, and the plugin runs outside a container, there is nothing to reach.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use super::mountinfo::{self, Line};
use crate::kind::Kind;

/// Volumes would be mounted where only this process sees them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "mounts below {} stay in this container, and pods would see empty directories: {} is not shared with the node; give \
     the volume of {} `mountPropagation: Bidirectional`", directory.display(), point.display(), directory.display()
)]
pub struct NotShared {
    /// The directory of kubelet's volumes.
    pub directory: PathBuf,
    /// The mount that it is on.
    pub point: PathBuf,
}

impl NotShared {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Unsupported
    }
}

/// Checks that what is mounted below kubelet's directory reaches the kubelet. Blocking.
///
/// # Errors
/// [`NotShared`]. A table of mounts that cannot be read proves nothing, and is no error.
pub fn reaches_kubelet(kubelet: &Path) -> Result<(), NotShared> {
    let pods = kubelet.join("pods");
    let directory = std::fs::canonicalize(if pods.exists() { &pods } else { kubelet });
    let Ok(directory) = directory else { return Ok(()) };
    let Some(line) = mount_of(&directory) else { return Ok(()) };
    if stays_inside(&line, &directory, is_own_namespace()) {
        return Err(NotShared { directory, point: line.mount.point });
    }
    Ok(())
}

/// Whether what is mounted on `line`, below `directory`, stays in this namespace, where somebody else should see it. A
/// mount for just this directory is a container's, and so is a namespace other than that of the first process.
fn stays_inside(line: &Line, directory: &Path, own_namespace: bool) -> bool {
    let made_for_it = line.mount.point == directory || directory.parent() == Some(&line.mount.point);
    !line.shared && (own_namespace || made_for_it)
}

fn mount_of(directory: &Path) -> Option<Line> {
    let stat = rustix::fs::statx(CWD, directory, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return None;
    }
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    mountinfo::parse(&table).find(|line| line.id == stat.stx_mnt_id)
}

fn is_own_namespace() -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    matches!((namespace("self"), namespace("1")), (Ok(own), Ok(first)) if own != first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_must_be_given() {
        let pods = Path::new("/var/lib/kubelet/pods");
        let stays = |point: &str, optional: &str, own| {
            let text = format!("36 35 8:1 /x {point} rw {optional}- ext4 /dev/sda1 rw\n");
            stays_inside(&mountinfo::parse(text.as_bytes()).next().unwrap(), pods, own)
        };
        for point in ["/var/lib/kubelet/pods", "/var/lib/kubelet"] {
            assert!(!stays(point, "shared:7 ", false) && !stays(point, "shared:7 master:1 ", true));
            assert!(stays(point, "", false), "mountPropagation: None");
            assert!(stays(point, "master:1 ", false), "mountPropagation: HostToContainer");
        }
        assert!(!stays("/", "", false), "a host without propagation");
        assert!(stays("/", "", true), "a namespace of its own");
    }
}
