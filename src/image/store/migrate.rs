//! Bringing an older store up to date: one step for each feature that a release adds, in the order in which they came.
//!
//! A step may be killed at any instruction, and is then made again from its beginning; so it must find what it has done, and
//! each of its changes must leave a store that the step's own release and the one before can tell from a finished one: by the
//! version file, which gets the feature last. While a step runs, nobody relies on anything in the store.
//!
//! This release has no features yet: a store is what the first release made.

use super::disk::Disk;
use super::error::StoreError;
use super::version::{self, Feature, Use, Version};

/// Brings a store from the feature before to this one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// What the store has afterwards.
    pub(super) feature: Feature,
    /// Does it, whatever was done of it before.
    pub(super) run: fn(&Disk) -> Result<(), StoreError>,
}

/// Those of this release, the oldest first. A feature is never taken out again.
pub(super) const MIGRATIONS: &[Migration] = &[];

/// What the features of these migrations are.
pub(super) fn features(migrations: &[Migration]) -> Vec<Feature> {
    migrations.iter().map(|migration| migration.feature).collect()
}

/// Makes the steps that the store lacks. `nobody` is called before the first, and keeps everybody out of the store for as long
/// as its answer lives. Returns what becomes of the store: it is only read where it cannot be brought up to date for now.
///
/// # Errors
/// Those of `nobody` and of the steps, other than that nothing can be written.
pub(super) fn migrate<T>(
    disk: &Disk,
    mut version: Version,
    migrations: &[Migration],
    nobody: impl FnOnce() -> Result<T, StoreError>,
) -> Result<Use, StoreError> {
    let mut lacking = migrations.iter().filter(|migration| !version.has(migration.feature.name)).peekable();
    if lacking.peek().is_none() {
        return Ok(Use::Whole(version));
    }
    let _alone = nobody()?;
    for migration in lacking.copied().collect::<Vec<_>>() {
        let name = migration.feature.name;
        let new = version.with(migration.feature);
        let path = disk.root().join(version::FILE);
        let done = (migration.run)(disk).and_then(|()| disk.write_durably(&path, new.render().as_bytes()));
        match done {
            Ok(()) => tracing::info!(feature = name, "the store was brought up to date"),
            Err(error) if error.is_unwritable() => {
                return Ok(Use::ReadOnly(format!("it cannot be brought up to date ({name:?}): {error}")));
            }
            Err(error) => return Err(error),
        }
        version = new;
    }
    Ok(Use::Whole(version))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::{fs, io};

    use super::super::version::Sort;
    use super::*;
    use crate::durable_file::Steps;

    /// Two steps: files get another name, and then a list of them is made.
    const STEPS: &[Migration] = &[
        Migration { feature: Feature { name: "renamed", sort: Sort::Incompatible }, run: rename },
        Migration { feature: Feature { name: "listed", sort: Sort::Compatible }, run: list },
    ];

    fn rename(disk: &Disk) -> Result<(), StoreError> {
        for name in disk.list(&disk.root().join("names"))? {
            let (old, name) = (disk.root().join("names").join(&name), name.to_string_lossy().into_owned());
            if !name.ends_with(".new") {
                disk.step("rename", &old, || fs::rename(&old, old.with_extension("new")))?;
            }
        }
        disk.sync_directory(&disk.root().join("names"))
    }

    fn list(disk: &Disk) -> Result<(), StoreError> {
        let mut names: Vec<_> = disk.list(&disk.root().join("names"))?;
        names.sort();
        let text: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        disk.write_durably(&disk.root().join("list"), text.join(",").as_bytes())
    }

    fn old_store() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["names", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        ["a", "b", "c"].iter().for_each(|name| fs::write(dir.path().join("names").join(name), name).unwrap());
        fs::write(dir.path().join(version::FILE), Version::first().render()).unwrap();
        dir
    }

    /// What a process does that is killed before its step number `last`.
    fn run(root: &Path, last: usize, kind: io::ErrorKind) -> Result<Use, StoreError> {
        let taken = Arc::new(AtomicUsize::new(0));
        let steps = Steps::new(move |_| match taken.fetch_add(1, Ordering::SeqCst) >= last {
            true => Err(kind.into()),
            false => Ok(()),
        });
        let disk = Disk::new(root, steps);
        let bytes = fs::read(root.join(version::FILE)).unwrap();
        match version::read(root, &bytes, &features(STEPS))? {
            Use::Whole(version) => migrate(&disk, version, STEPS, || Ok(())),
            read_only => Ok(read_only),
        }
    }

    fn assert_migrated(root: &Path, why: &str) {
        assert_eq!(fs::read_to_string(root.join("list")).unwrap(), "a.new,b.new,c.new", "{why}");
        let version = fs::read_to_string(root.join(version::FILE)).unwrap();
        assert!(version.contains("renamed") && version.contains("listed"), "{why}: {version}");
        assert_eq!(fs::read_dir(root.join("names")).unwrap().count(), 3);
    }

    #[test]
    fn a_migration_that_is_killed_anywhere_is_ended_by_the_next_opening() {
        // Killed before this one of its steps.
        for last in 0..1000 {
            let dir = old_store();
            let first = run(dir.path(), last, io::ErrorKind::Other);
            if first.is_ok() {
                assert_migrated(dir.path(), "undisturbed");
                assert!(last > 10, "only {last} steps");
                return;
            }
            // A release before the first step may use the store until it is done, and not after.
            let bytes = fs::read(dir.path().join(version::FILE)).unwrap();
            let old = version::read(dir.path(), &bytes, &[]);
            let is_renamed = String::from_utf8_lossy(&bytes).contains("renamed");
            assert_eq!(old.is_err(), is_renamed, "{old:?}");
            assert!(matches!(run(dir.path(), usize::MAX, io::ErrorKind::Other), Ok(Use::Whole(_))));
            assert_migrated(dir.path(), &format!("killed before step {last}"));
        }
        panic!("the migration does not end");
    }

    #[test]
    fn a_store_that_cannot_be_written_to_is_read_as_it_is() {
        let dir = old_store();
        let read_only = run(dir.path(), 0, io::ErrorKind::StorageFull).unwrap();
        assert!(matches!(&read_only, Use::ReadOnly(why) if why.contains("renamed")), "{read_only:?}");
        assert_eq!(fs::read(dir.path().join("names/a")).unwrap(), b"a");
    }

    #[test]
    fn a_store_of_today_is_left_as_it_is() {
        let dir = old_store();
        let disk = Disk::new(dir.path(), Steps::new(|step| panic!("{step}")));
        let asked = || -> Result<(), StoreError> { panic!("nobody needs to be kept out") };
        assert!(matches!(migrate(&disk, Version::first(), MIGRATIONS, asked), Ok(Use::Whole(_))));
    }
}
