//! What the kernel and the filesystem under the store can do: probed, never assumed.

use std::path::Path;

use super::parts::objects::UNSEALED;
use crate::image::objects::{ObjectError, Objects};
use crate::integrity::Integrity;

/// The filesystem that a store lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// Its type, as in mount(8); a number in hexadecimal for one not known here.
    pub name: String,
    /// Whether files on it can have fs-verity, and if not, why.
    pub verity: Result<(), String>,
}

impl Filesystem {
    /// Probes the filesystem of the store in `store`: enables fs-verity on a tiny file and measures it.
    pub(super) fn probe(store: &Path) -> Result<Self, ObjectError> {
        // A failing statfs costs only the name.
        let name = rustix::fs::statfs(store).map_or_else(|_| "unknown".to_owned(), |stat| name(stat.f_type));
        let verity = match Objects::supports_verity(store) {
            Ok(true) => Ok(()),
            Ok(false) => Err(missing(&name)),
            Err(error) if error.is_unwritable() => last_verdict(store, &name, &error)?,
            Err(other) => return Err(other),
        };
        Ok(Self { name, verity })
    }

    /// Whether files may take less of it than their bytes, beyond holes: it can compress them, or nobody knows what it does.
    pub fn may_compress(&self) -> bool {
        !matches!(&*self.name, "ext4" | "xfs" | "tmpfs")
    }

    /// The level that bytes read from here reach.
    pub fn integrity(&self) -> Integrity {
        if self.verity.is_ok() { Integrity::Read } else { Integrity::Fetch }
    }
}

/// What the last probe found, where nothing can be written: a full disk says nothing about fs-verity. The objects keep
/// the verdict. They all have fs-verity, unless the store notes that some may lack it.
fn last_verdict(
    store: &Path,
    name: &str,
    unwritable: &ObjectError,
) -> Result<Result<(), String>, ObjectError> {
    let sealed = !store.join(UNSEALED).exists() && Objects::has_sealed(store)? == Some(true);
    tracing::warn!(store = %store.display(), sealed, error = %unwritable, "nothing can be written: taking the last verdict on fs-verity");
    let untested =
        || format!("{name} could not be tested for fs-verity ({unwritable}), and its objects have none");
    Ok(if sealed { Ok(()) } else { Err(untested()) })
}

fn missing(filesystem: &str) -> String {
    match filesystem {
        "ext4" | "f2fs" => format!(
            "this {filesystem} has no fs-verity: enable its `verity` feature (for ext4: \
             `tune2fs -O verity DEVICE`, unmounted, block size 4096) and use a kernel with CONFIG_FS_VERITY"
        ),
        "btrfs" => "the kernel lacks CONFIG_FS_VERITY: use one that has it".to_owned(),
        other => format!("{other} has no fs-verity: put the store on ext4, btrfs or f2fs"),
    }
}

/// Names of statfs(2)'s magic numbers, for the filesystems that stores are seen on.
fn name(magic: i64) -> String {
    match magic {
        0xef53 => "ext4",
        0x9123_683e => "btrfs",
        0x5846_5342 => "xfs",
        0xf2f5_2010 => "f2fs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x2fc1_2fc1 => "zfs",
        0x6969 => "nfs",
        0xca45_1a4e => "bcachefs",
        other => return format!("{other:#x}"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_the_probe_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        Objects::create(dir.path()).unwrap();
        let found = Filesystem::probe(dir.path()).unwrap();
        assert_ne!(found.name, "unknown");
        match &found.verity {
            Ok(()) => assert_eq!(found.integrity(), Integrity::Read),
            Err(why) => {
                assert_eq!(found.integrity(), Integrity::Fetch);
                assert!(why.contains(&found.name), "{why}");
            }
        }
    }
}
