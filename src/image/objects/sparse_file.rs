//! Writing a file without its long runs of zeros. They become holes: read as zeros, but no space is taken.
//!
//! fs-verity hashes a hole as the zeros that it is read as, so the digest is the same.

use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::directory::Objects;
use super::error::ObjectError;

/// Zeros in a row that become a hole, in bytes. A hole costs an extent, and fewer zeros are not worth it.
const HOLE: u64 = 64 << 10;
/// Filesystems keep holes in units of this many bytes, and zeros are looked for in units of it.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A file that is written from its beginning to its end.
#[derive(Debug)]
pub(super) struct SparseFile {
    objects: Objects,
    file: OwnedFd,
    /// Bytes so far.
    size: u64,
    /// How many of them are zeros at the end that are neither written nor left out yet.
    zeros: u64,
    /// Whether they are a hole, however few.
    is_hole: bool,
}

impl SparseFile {
    /// `file` is empty.
    pub(super) fn new(objects: &Objects, file: OwnedFd) -> Self {
        Self { objects: objects.clone(), file, size: 0, zeros: 0, is_hole: false }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        // What of them is neither written nor counted as zeros begins here.
        let mut from = 0;
        let mut at = 0;
        while at < bytes.len() {
            let start = at;
            while at < bytes.len() && is_zero(self.block(bytes, at)) {
                at += self.block(bytes, at).len();
            }
            let run = at - start;
            // One that reaches the end may go on in the next bytes, and one at the beginning may have begun before.
            let is_open = at == bytes.len() || (start == from && self.zeros > 0);
            if run as u64 >= HOLE || (run > 0 && is_open) {
                self.data(&bytes[from..start])?;
                self.zeros += run as u64;
                from = at;
            }
            if at < bytes.len() {
                at += self.block(bytes, at).len();
            }
        }
        self.data(&bytes[from..])?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Appends `count` zeros, which are a hole if they fill a block.
    pub(super) fn hole(&mut self, count: u64) {
        self.size += count;
        self.zeros += count;
        self.is_hole |= count >= BLOCK as u64;
    }

    /// The file in its full length.
    pub(super) fn finish(self) -> Result<OwnedFd, ObjectError> {
        // A seek alone does not extend the file.
        if self.zeros > 0 {
            rustix::fs::ftruncate(&self.file, self.size)
                .map_err(|errno| self.objects.fail(errno, "ftruncate"))?;
        }
        Ok(self.file)
    }

    /// The bytes at `at` that lie in one block of the file.
    fn block<'a>(&self, bytes: &'a [u8], at: usize) -> &'a [u8] {
        let in_block = (self.size + at as u64) as usize % BLOCK;
        &bytes[at..bytes.len().min(at + BLOCK - in_block)]
    }

    /// Writes bytes behind the zeros that were waiting for them.
    fn data(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (mut zeros, is_hole) = (std::mem::take(&mut self.zeros), std::mem::take(&mut self.is_hole));
        if is_hole || zeros >= HOLE {
            // The kernel refuses what is no offset.
            let forwards = i64::try_from(zeros).unwrap_or(i64::MAX);
            rustix::fs::seek(&self.file, SeekFrom::Current(forwards))
                .map_err(|errno| self.objects.fail(errno, "seek"))?;
            zeros = 0;
        }
        while zeros > 0 {
            let now = zeros.min(BLOCK as u64) as usize;
            self.put(&ZEROS[..now])?;
            zeros -= now as u64;
        }
        self.put(bytes)
    }

    fn put(&self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.objects.inner.room.take(bytes.len() as u64)?;
        write_all(&self.file, bytes).map_err(|errno| self.objects.fail(errno, "write"))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes == &ZEROS[..bytes.len()]
}

/// Writes all of `bytes`, however few of them the kernel takes at a time.
pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            // Must not happen for a regular file, and would loop forever.
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
