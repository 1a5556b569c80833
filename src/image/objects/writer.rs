//! An object whose content comes as a stream, holes included.

use std::os::fd::OwnedFd;

use rustix::fs::SeekFrom;

use super::directory::Objects;
use super::error::ObjectError;
use super::publish::{Put, write_all};
use crate::image::verity::{VerityDigest, VerityHasher};

/// An object being written. It has no name until [`ObjectWriter::finish`], and is gone if dropped before.
#[derive(Debug)]
pub(in crate::image) struct ObjectWriter {
    objects: Objects,
    file: OwnedFd,
    hasher: VerityHasher,
    size: u64,
    ends_in_hole: bool,
}

impl Objects {
    /// Starts an object whose content comes as a stream.
    ///
    /// # Errors
    /// Those of open(2) with `O_TMPFILE`.
    pub(in crate::image) fn writer(&self) -> Result<ObjectWriter, ObjectError> {
        let file = self.unnamed()?;
        Ok(ObjectWriter {
            objects: self.clone(),
            file,
            hasher: VerityHasher::default(),
            size: 0,
            ends_in_hole: false,
        })
    }
}

impl ObjectWriter {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if the filesystem is, [`ObjectError::Reserved`] if the rest is for others; else that of
    /// write(2).
    pub(in crate::image) fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.objects.inner.room.take(bytes.len() as u64)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.ends_in_hole = false;
        write_all(&self.file, bytes).map_err(|errno| self.objects.fail(errno, "write"))
    }

    /// Appends `count` zeros as a hole: they are hashed, but take no space.
    ///
    /// # Errors
    /// Those of lseek(2).
    pub(in crate::image) fn zeros(&mut self, count: u64) -> Result<(), ObjectError> {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let mut left = count;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hasher.update(&ZEROS[..now]);
            left -= now as u64;
        }
        self.size += count;
        rustix::fs::seek(&self.file, SeekFrom::Start(self.size))
            .map(|_| self.ends_in_hole = true)
            .map_err(|errno| self.objects.fail(errno, "seek"))
    }

    /// Bytes written so far.
    #[cfg(test)]
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Gives the content its name.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub(in crate::image) fn finish(self) -> Result<(VerityDigest, Put), ObjectError> {
        // A seek alone does not extend the file.
        if self.ends_in_hole {
            rustix::fs::ftruncate(&self.file, self.size)
                .map_err(|errno| self.objects.fail(errno, "ftruncate"))?;
        }
        let digest = self.hasher.finish();
        self.objects.keep(&digest)?;
        if self.objects.contains(&digest, self.size)? {
            return Ok((digest, Put::Present));
        }
        let put = self.objects.publish(self.file, &digest, self.size)?;
        Ok((digest, put))
    }
}
