//! One blob that is being fetched, in a file that a killed process leaves to the next.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::geometry::{Geometry, HEAD};
use crate::durable_file::assert_may_block;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::space::Spare;
use crate::oci::digest::Digest;

/// Bytes that are written between two looks at the room that is left.
const GRAIN: u64 = 16 << 20;
/// What a compressed byte unpacks to, as a rule, and itself.
const UNPACKED: u64 = 4;

/// A blob that is being fetched. Its file is locked while this value lives. All methods block.
///
/// What is read from it has been checked by nobody: the digest of the whole blob decides.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    disk: Disk,
    spare: Spare,
    geometry: Geometry,
    /// How much was missing, in grains, at the last look at the room. Connections write at once, each with its own idea
    /// of what is missing, so that none may see for itself where a grain ends.
    looked: AtomicU64,
}

/// Why bytes were not kept.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotKept(String);

impl Partial {
    /// Goes on with what is in the file, which is locked and at `path`, or begins anew if it is not about `blob`. Returns
    /// how many bytes of each piece are there, too.
    pub(super) fn resume(
        (file, path): (File, PathBuf),
        (disk, spare): (&Disk, &Spare),
        blob: &Digest,
        wanted: Geometry,
    ) -> Result<(Self, Vec<u64>), StoreError> {
        let (disk, spare) = (disk.clone(), spare.clone());
        let found = read_table(&file, blob, wanted.size());
        // An error of the disk is no reason not to try elsewhere on it.
        if let Ok(Some((geometry, have))) = found {
            return Ok((Self { file, path, disk, spare, geometry, looked: AtomicU64::new(u64::MAX) }, have));
        }
        let begin = || {
            file.set_len(0)?;
            file.write_all_at(&wanted.head(blob), 0)?;
            // A hole reads as zeros: nothing is there. The length is given last, so that a file without it is not read.
            file.set_len(wanted.data().saturating_add(wanted.size()))
        };
        disk.step("begin", &path, begin)?;
        let have = vec![0; wanted.pieces()];
        Ok((Self { file, path, disk, spare, geometry: wanted, looked: AtomicU64::new(u64::MAX) }, have))
    }

    /// The pieces that the blob is fetched in.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Keeps `bytes`, which follow the first `have` bytes of a piece. `left` is how many of the blob's bytes are missing
    /// then.
    ///
    /// # Errors
    /// There is little room, or the disk fails. What was kept before stays readable.
    pub fn keep(&self, piece: usize, have: u64, bytes: &[Bytes], left: u64) -> Result<(), NotKept> {
        assert_may_block();
        let count: u64 = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        self.disk.room().take(count).map_err(|shortage| NotKept(shortage.to_string()))?;
        if left / GRAIN < self.looked.load(Ordering::Relaxed) {
            self.look_for_room(left)?;
        }
        let write = || {
            let mut at = self.geometry.data() + self.geometry.bytes_of(piece).start + have;
            for bytes in bytes {
                self.file.write_all_at(bytes, at)?;
                at += bytes.len() as u64;
            }
            // After the bytes that it counts: the page cache outlives this process.
            self.file.write_all_at(&(have + count).to_le_bytes(), self.geometry.slot_of(piece))
        };
        self.disk.step("keep a part of a layer in", &self.path, write).map_err(|e| NotKept(e.to_string()))
    }

    /// Whether there is room for the rest of the blob, and for what it unpacks to.
    pub(super) fn look_for_room(&self, left: u64) -> Result<(), NotKept> {
        self.looked.fetch_min(left / GRAIN, Ordering::Relaxed);
        let needed = left.saturating_mul(UNPACKED);
        if self.spare.covers(needed) {
            return Ok(());
        }
        Err(NotKept(format!("less than {needed} bytes of the store's filesystem are to spare")))
    }

    /// Reads bytes that are here; `offset` is the place in the blob.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        assert_may_block();
        self.file.read_exact_at(into, self.geometry.data() + offset)
    }

    /// Gives the space of the file back: nothing of it will be read any more.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub fn empty(&self) -> io::Result<()> {
        assert_may_block();
        self.file.set_len(0)
    }

    /// Removes the file: the layer is stored, or what is here is of no use. What is open stays readable.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove(&self) -> Result<(), StoreError> {
        self.disk.remove(&self.path).map(drop)
    }
}

/// What is there of the blob; `None` if the file is about another one, or not whole.
fn read_table(file: &File, blob: &Digest, size: u64) -> io::Result<Option<(Geometry, Vec<u64>)>> {
    let metadata = file.metadata()?;
    let mut head = [0; HEAD];
    if metadata.len() < HEAD as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let Some(geometry) = Geometry::of_head(&head, blob, size) else { return Ok(None) };
    if metadata.len() != geometry.data().saturating_add(size) {
        return Ok(None);
    }
    let mut table = vec![0; geometry.pieces() * 8];
    file.read_exact_at(&mut table, geometry.slot_of(0))?;
    let have = table.chunks_exact(8).map(|slot| u64::from_le_bytes(slot.try_into().unwrap_or_default()));
    let have: Vec<u64> = have.collect();
    // A number that cannot be is no number of ours.
    let plausible = have.iter().enumerate().all(|(piece, have)| *have <= geometry.length_of(piece));
    Ok(plausible.then_some((geometry, have)))
}

/// Disk space of a file in bytes.
pub(super) fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.blocks() * 512
}
