//! SELinux labels of a store's objects, for kernels that check them behind the overlay.
//!
//! The open of a file is checked against the mount's label. But a later change of a mapping (mprotect(2), by which a
//! dynamic linker protects what it has relocated) is checked against the object below, before Linux 7.0.4 (6.12.96 in
//! its series). On a host's disk that object has a label that no container may read, so the shared libraries of a
//! volume could not be loaded. The objects therefore get the label of the mounts.
//!
//! The order makes interruptions and concurrent pulls safe. `objects/` comes first, because new objects inherit its
//! label. The last of its directories comes last, because its label marks a finished store.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::context::proc_path;
use super::selinux::{ATTRIBUTE, label_at};

/// The last directory of objects in order.
const LAST: &str = "ff";

/// Gives all objects this label, unless they have it. A failure is only logged: it affects only programs in volumes on
/// older kernels.
pub(super) fn relabel(objects: &OwnedFd, label: &str) {
    let begun = Instant::now();
    // The dot makes it the directory itself, not the link in /proc.
    let path = format!("{}/.", proc_path(objects.as_fd()));
    match relabel_below(Path::new(&path), label) {
        Ok(0) => {}
        Ok(count) => {
            let seconds = begun.elapsed().as_secs_f64();
            tracing::info!(
                label,
                objects = count,
                seconds,
                "gave the store's objects the SELinux label of the mounts"
            );
        }
        Err(error) => tracing::warn!(
            label,
            %error,
            "the store's objects cannot be given the SELinux label of the mounts: containers may be refused to load \
             shared libraries from volumes; see docs/OPERATIONS.md"
        ),
    }
}

/// Returns the number of objects that were labelled.
fn relabel_below(objects: &Path, label: &str) -> std::io::Result<usize> {
    let has = |path: &Path| match label_at(path) {
        Ok(found) => Ok(found.as_deref() == Some(label)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    };
    if has(objects)? && has(&objects.join(LAST))? {
        return Ok(0);
    }
    set(objects, label)?;
    let mut directories = names(objects)?;
    directories.sort();
    let mut count = 0;
    for directory in directories.iter().map(|name| objects.join(name)) {
        // A temporary file directly in `objects/` has inherited the label.
        if !directory.is_dir() {
            continue;
        }
        for name in names(&directory)? {
            let object = directory.join(name);
            // The label of a file with names elsewhere is the host's to choose (`image::objects::adopt`).
            if std::fs::symlink_metadata(&object).is_ok_and(|metadata| metadata.nlink() > 1) {
                continue;
            }
            set(&object, label)?;
            count += 1;
        }
        set(&directory, label)?;
    }
    Ok(count)
}

fn names(directory: &Path) -> std::io::Result<Vec<std::ffi::OsString>> {
    std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

fn set(path: &Path, label: &str) -> Result<(), Errno> {
    // With the terminating NUL, as all tools write it.
    let value = [label.as_bytes(), b"\0"].concat();
    match rustix::fs::lsetxattr(path, ATTRIBUTE, &value, XattrFlags::empty()) {
        // Collected meanwhile.
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_labelled_once_and_completely() {
        let store = tempfile::tempdir().unwrap();
        for name in ["00/a", "00/b", "7f/c", "ff/d"] {
            let path = store.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let label = "system_u:object_r:container_ro_file_t:s0";
        let done = relabel_below(store.path(), label);
        if !rustix::process::geteuid().is_root() {
            return assert!(done.is_err(), "labels are for the privileged");
        }
        assert_eq!(done.unwrap(), 4);
        for name in ["", "00", "00/a", "7f/c", "ff", "ff/d"] {
            assert_eq!(label_at(&store.path().join(name)), Ok(Some(label.to_owned())), "{name:?}");
        }
        assert_eq!(relabel_below(store.path(), label).unwrap(), 0, "done is done");
        // Interrupted: the last directory was not reached.
        set(&store.path().join(LAST), "system_u:object_r:var_lib_t:s0").unwrap();
        set(&store.path().join("7f/c"), "system_u:object_r:var_lib_t:s0").unwrap();
        assert_eq!(relabel_below(store.path(), label).unwrap(), 4);
        assert_eq!(label_at(&store.path().join("7f/c")), Ok(Some(label.to_owned())));
    }
}
