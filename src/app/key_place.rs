//! Says where the node key lies. Beside the store it protects against whoever can write to the store, but not against
//! whoever has the disk (docs/SECURITY.md).

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Logs that the key lies on the store's own filesystem, if it does.
pub(super) fn report(key: &Path, store: &Path) {
    // Both exist: they have just been opened.
    if is_on_one_filesystem(key, store).is_ok_and(|is| is) {
        tracing::info!(
            node_key = %key.display(),
            "the node key lies on the filesystem of the store: who has that disk offline can read it, and write \
             records that this node believes; --node-key puts it elsewhere"
        );
    }
}

fn is_on_one_filesystem(key: &Path, store: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(key)?.dev() == std::fs::metadata(store)?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_are_told_apart() {
        let (here, proc) = (tempfile::tempdir().unwrap(), Path::new("/proc/self/status"));
        let key = here.path().join("node.key");
        std::fs::write(&key, "").unwrap();
        assert!(is_on_one_filesystem(&key, here.path()).unwrap());
        assert!(!is_on_one_filesystem(proc, here.path()).unwrap());
        assert!(is_on_one_filesystem(&here.path().join("gone"), here.path()).is_err());
    }
}
