//! Opening a store: making it, checking it, repairing it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use super::disk::{self, Disk};
use super::lock::{self, StoreLock};
use super::parts::objects::UNSEALED;
use super::parts::{DIRECTORIES, Parts};
use super::space::Spare;
use super::{Filesystem, Options, Store, StoreError, StoreMetrics, version};
use crate::image::objects::{ObjectSources, Objects, Room, Sealing};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Why a filesystem with fs-verity does not give the level `read` yet.
const ENABLING: &str = "objects were stored before the filesystem had fs-verity; the node plugin enables it on them (so does \
                        `composefs-csi verify --enable-verity`), and the next start after that reaches level read";

impl Store {
    /// Opens the store in `root`, making it if the directory is empty or missing. Removes what
    /// crashed processes left, and after a power cut what may be torn. Blocking; quick unless there is
    /// something to repair.
    ///
    /// A store that is there opens whatever the state of its filesystem: on a full one images are removed, on a
    /// read-only one they are listed and read. What cannot be tidied up then is left to a later opening.
    ///
    /// # Errors
    /// [`StoreError::Version`] and [`StoreError::NotAStore`] for what cannot be used, [`StoreError::Busy`] if
    /// another process keeps a needed repair from being made, and those of the filesystem.
    pub fn open(root: &Path, options: Options) -> Result<Self, StoreError> {
        let Options { patience, tidy_patience, measure, min_free, keep_partial, .. } = options;
        let (space, of) = (measure.clone(), root.to_owned());
        // Where it cannot be measured, the write itself tells.
        let room = Room::new(move || space.of(&of).ok().and_then(|space| space.shortage(min_free)));
        let disk = Disk::new(root, options.steps).with_room(room);
        let boot_id = match options.boot_id {
            Some(id) => id,
            None => fs::read_to_string(BOOT_ID)
                .map_err(|error| disk.error("read", BOOT_ID.as_ref(), error))?
                .trim()
                .to_owned(),
        };
        create(&disk)?;
        let mut filesystem = Filesystem::probe(root)?;
        let sealing = match (&filesystem.verity, root.join(UNSEALED).exists()) {
            (Err(_), _) => Sealing::Off,
            (Ok(()), false) => Sealing::All,
            (Ok(()), true) => {
                filesystem.verity = Err(ENABLING.to_owned());
                Sealing::New
            }
        };
        if let Err(why) = &filesystem.verity {
            tracing::info!(store = %root.display(), filesystem = filesystem.name, why, "no fs-verity: integrity level is fetch");
        }
        let mut sources = ObjectSources::open(&options.object_sources);
        if let (Sealing::Off, Err(why)) = (sealing, &filesystem.verity) {
            sources = sources.give_up(why);
        }
        let objects = Objects::open_with(root, sealing, disk.room().clone(), sources)?;
        let metrics = StoreMetrics::new(objects.metrics().clone());
        let store_lock = StoreLock::new(&disk);
        let spare = Spare::new(measure.clone(), root, min_free);
        let parts = Parts::new(&disk, &options.key, &boot_id, objects, (spare, keep_partial));
        let rounds = Mutex::default();
        let store =
            Self { disk, store_lock, parts, filesystem, patience, tidy_patience, measure, metrics, rounds };
        store.repair()?;
        Ok(store)
    }
}

/// Makes what is missing. `version` comes before all that it describes, so an interrupted creation
/// is either an empty directory or a store with some directories missing.
fn create(disk: &Disk) -> Result<(), StoreError> {
    let root = disk.root();
    let version = root.join(version::FILE);
    match disk.read(&version)? {
        Some(bytes) => {
            version::check(root, &bytes)?;
            // A newer release may have more directories. One that is missing counts as empty.
            later_if_unwritable("prepare the store", complete(disk))
        }
        None => {
            disk.step("make", root, || fs::DirBuilder::new().recursive(true).mode(0o700).create(root))?;
            refuse_foreign(disk, &version)?;
            disk.make(&root.join(disk::TEMPORARY))?;
            disk.write_durably(&version, version::render().as_bytes())?;
            complete(disk)
        }
    }
}

fn complete(disk: &Disk) -> Result<(), StoreError> {
    let root = disk.root();
    close_to_others(disk, root)?;
    DIRECTORIES.iter().try_for_each(|name| disk.make(&root.join(name)).map(drop))?;
    Ok(Objects::create(root)?)
}

/// Leaves a task to a later opening if nothing can be written now.
pub(super) fn later_if_unwritable(task: &str, done: Result<(), StoreError>) -> Result<(), StoreError> {
    match done {
        Err(error) if error.is_unwritable() => {
            tracing::warn!(%error, "could not {task}; that is left to a later opening");
            Ok(())
        }
        other => other,
    }
}

/// Objects are private images of many tenants; only the owner (root) may look.
fn close_to_others(disk: &Disk, root: &Path) -> Result<(), StoreError> {
    let mode = fs::metadata(root).map_err(|error| disk.error("inspect", root, error))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    disk.step("close to others", root, || fs::set_permissions(root, fs::Permissions::from_mode(0o700)))
}

/// A directory without `version` must be empty, or one whose creation was interrupted.
fn refuse_foreign(disk: &Disk, version: &Path) -> Result<(), StoreError> {
    let root = disk.root();
    // `lost+found` is what a fresh ext4 has.
    let ours = |name: &std::ffi::OsStr| name == disk::TEMPORARY || name == lock::FILE || name == "lost+found";
    match disk.list(root)?.into_iter().find(|name| !ours(name)) {
        None => Ok(()),
        // Another process is making it at this moment.
        Some(_) if version.exists() => Ok(()),
        Some(found) => {
            Err(StoreError::NotAStore { store: root.to_owned(), found: found.to_string_lossy().into_owned() })
        }
    }
}
