//! Room on the store's filesystem.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::objects::Shortage;

/// Bytes and inodes: what an object takes, and what a filesystem runs out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// How full a filesystem is, as an unprivileged user sees it (df(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// What there is.
    pub total: Amount,
    /// What is taken of it.
    pub used: Amount,
}

impl Space {
    /// Asks statvfs(3). A filesystem that makes inodes as it goes (btrfs) reports none: never short.
    fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let used_inodes = stat.f_files.saturating_sub(stat.f_ffree);
        Ok(Self {
            // Blocks reserved for root count as neither used nor available.
            total: Amount { bytes: (used + stat.f_bavail) * stat.f_frsize, inodes: stat.f_files },
            used: Amount { bytes: used * stat.f_frsize, inodes: used_inodes },
        })
    }

    /// What must go so that at most `percent` are used, of bytes and of inodes.
    pub(super) fn excess(&self, percent: u8) -> Amount {
        let over = |total: u64, used: u64| used.saturating_sub(allowed(total, percent));
        Amount {
            bytes: over(self.total.bytes, self.used.bytes),
            inodes: over(self.total.inodes, self.used.inodes),
        }
    }

    /// How full it is, of bytes or of inodes, in percent.
    pub fn percent(&self) -> u64 {
        let part = |total: u64, used: u64| {
            u64::try_from(u128::from(used) * 100 / u128::from(total.max(1))).unwrap_or(u64::MAX)
        };
        part(self.total.bytes, self.used.bytes).max(part(self.total.inodes, self.used.inodes))
    }

    /// What there is less of than `min_free` percent, if anything.
    pub(super) fn shortage(&self, min_free: u8) -> Option<Shortage> {
        let percent = 100_u8.saturating_sub(min_free);
        let excess = self.excess(percent);
        let short = |what, total: u64, used: u64, excess: u64| {
            let free = total.saturating_sub(used);
            (excess > 0).then(|| Shortage { what, free, reserve: free.saturating_add(excess) })
        };
        let (total, used) = (self.total, self.used);
        short("bytes", total.bytes, used.bytes, excess.bytes)
            .or_else(|| short("inodes", total.inodes, used.inodes, excess.inodes))
    }

    /// The same with so many bytes more in use.
    #[must_use]
    pub fn with(self, bytes: u64) -> Self {
        let used = Amount { bytes: self.used.bytes.saturating_add(bytes), ..self.used };
        Self { used, ..self }
    }

    /// The bytes that may be written, where `min_free` percent are left to others.
    pub(super) fn spare(&self, min_free: u8) -> u64 {
        let percent = 100_u8.saturating_sub(min_free);
        allowed(self.total.bytes, percent).saturating_sub(self.used.bytes)
    }

    /// The same filesystem with nothing on it.
    #[must_use]
    pub(super) fn emptied(self) -> Self {
        Self { used: Amount::default(), ..self }
    }

    /// The bytes that are left.
    pub fn free(&self) -> u64 {
        self.total.bytes.saturating_sub(self.used.bytes)
    }

    /// Whether more than `percent` of bytes or inodes are used.
    pub fn exceeds(&self, percent: u8) -> bool {
        self.excess(percent) != Amount::default()
    }
}

/// So many percent of a total. In 128 bits: the product of a large disk's bytes and a percentage passes 64.
fn allowed(total: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(total) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// The room that is left on a store's filesystem beyond what pulls leave to others.
#[derive(Debug, Clone)]
pub(super) struct Spare {
    measure: Measure,
    root: PathBuf,
    /// Percent that pulls leave free.
    min_free: u8,
}

impl Spare {
    pub(super) fn new(measure: Measure, root: &Path, min_free: u8) -> Self {
        Self { measure, root: root.to_owned(), min_free }
    }

    /// Whether so many bytes can be written, and a file be made. Not if the filesystem cannot be measured.
    pub(super) fn covers(&self, bytes: u64) -> bool {
        self.measure.of(&self.root).is_ok_and(|space| {
            let used = space.used.bytes.saturating_add(bytes);
            let after = Space { used: Amount { bytes: used, ..space.used }, ..space };
            after.shortage(self.min_free).is_none()
        })
    }

    /// Bytes of the filesystem; 0 if it cannot be measured.
    pub(super) fn total(&self) -> u64 {
        self.measure.of(&self.root).map_or(0, |space| space.total.bytes)
    }
}

impl Amount {
    /// Whether this is at least `other`, in bytes and in inodes.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.bytes >= other.bytes && self.inodes >= other.inodes
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

impl std::ops::SubAssign for Amount {
    /// Down to nothing and not below.
    fn sub_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.inodes = self.inodes.saturating_sub(other.inodes);
    }
}

/// How room is measured: statvfs(3), or what a test says.
#[derive(Clone)]
pub struct Measure(Arc<MeasureFn>);

type MeasureFn = dyn Fn(&Path) -> io::Result<Space> + Send + Sync;

impl Measure {
    /// Measures with `measure`, which is given the store's directory.
    pub fn new(measure: impl Fn(&Path) -> io::Result<Space> + Send + Sync + 'static) -> Self {
        Self(Arc::new(measure))
    }

    pub(super) fn of(&self, path: &Path) -> io::Result<Space> {
        (self.0)(path)
    }
}

impl Default for Measure {
    fn default() -> Self {
        Self::new(Space::of)
    }
}

impl fmt::Debug for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Measure")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_inode_table_is_full_too() {
        let total = Amount { bytes: 1000, inodes: 100 };
        let space = Space { total, used: Amount { bytes: 100, inodes: 90 } };
        assert!(space.exceeds(85) && !space.exceeds(90));
        assert_eq!((space.excess(80), space.percent()), (Amount { bytes: 0, inodes: 10 }, 90));
        let btrfs =
            Space { total: Amount { bytes: 1000, inodes: 0 }, used: Amount { bytes: 850, inodes: 0 } };
        assert!(!btrfs.exceeds(85) && btrfs.exceeds(84));
    }

    #[test]
    fn what_is_to_be_left_is_short_in_bytes_or_in_inodes() {
        let total = Amount { bytes: 1000, inodes: 100 };
        let used = |bytes, inodes| Space { total, used: Amount { bytes, inodes } };
        assert_eq!(used(980, 98).shortage(2), None);
        assert_eq!(used(981, 98).shortage(2), Some(Shortage { what: "bytes", free: 19, reserve: 20 }));
        assert_eq!(used(0, 99).shortage(2), Some(Shortage { what: "inodes", free: 1, reserve: 2 }));
        assert_eq!(used(1000, 100).shortage(0), None);
        assert_eq!(Space::default().shortage(2), None, "no inodes to run out of");
    }

    #[test]
    fn spare_is_what_is_left_beyond_the_reserve() {
        let total = Amount { bytes: 1000, inodes: 0 };
        let measure =
            |used| Measure::new(move |_| Ok(Space { total, used: Amount { bytes: used, inodes: 0 } }));
        let spare = |used| Spare::new(measure(used), Path::new("/s"), 10);
        assert!(spare(100).covers(800) && !spare(100).covers(801) && !spare(901).covers(0));
        assert!(!spare(100).covers(u64::MAX));
        let unknown = Spare::new(Measure::new(|_| Err(io::ErrorKind::Other.into())), Path::new("/s"), 0);
        assert!(!unknown.covers(0));
    }

    #[test]
    fn the_kernel_is_asked() {
        let space = Measure::default().of(Path::new("/")).unwrap();
        assert!(space.total.bytes > 0 && space.used.bytes <= space.total.bytes, "{space:?}");
    }
}
