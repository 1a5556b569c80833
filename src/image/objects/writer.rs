//! An object whose content comes as a stream, holes included.

use super::directory::Objects;
use super::error::ObjectError;
use super::publish::Put;
use super::sparse_file::SparseFile;
use crate::image::verity::{VerityDigest, VerityHasher};

/// An object being written. It has no name until [`ObjectWriter::finish`], and is gone if dropped before.
#[derive(Debug)]
pub(in crate::image) struct ObjectWriter {
    objects: Objects,
    file: SparseFile,
    hasher: VerityHasher,
}

impl Objects {
    /// Starts an object whose content comes as a stream.
    ///
    /// # Errors
    /// Those of open(2) with `O_TMPFILE`.
    pub(in crate::image) fn writer(&self) -> Result<ObjectWriter, ObjectError> {
        let file = SparseFile::new(self, self.unnamed()?);
        Ok(ObjectWriter { objects: self.clone(), file, hasher: VerityHasher::default() })
    }
}

/// An object whose digest is known before its content comes. It has no name until [`ExpectedObject::finish`], and is gone if
/// dropped before.
#[derive(Debug)]
pub struct ExpectedObject {
    writer: ObjectWriter,
    expected: VerityDigest,
}

impl Objects {
    /// Starts an object that must have this digest.
    ///
    /// # Errors
    /// Those of open(2) with `O_TMPFILE`.
    pub fn expecting(&self, digest: &VerityDigest) -> Result<ExpectedObject, ObjectError> {
        Ok(ExpectedObject { writer: self.writer()?, expected: *digest })
    }
}

impl ExpectedObject {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if the filesystem is, [`ObjectError::Reserved`] if the rest is for others; else that of write(2).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.writer.write(bytes)
    }

    /// Gives the content its name if its digest is the expected one; else nothing stays, and the inner error is the digest
    /// that it has.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub fn finish(self) -> Result<Result<Put, VerityDigest>, ObjectError> {
        match self.writer.hasher.clone().finish() {
            found if found == self.expected => Ok(Ok(self.writer.finish()?.1)),
            found => Ok(Err(found)),
        }
    }
}

impl ObjectWriter {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`ObjectError::Full`] if the filesystem is, [`ObjectError::Reserved`] if the rest is for others; else that of
    /// write(2) or lseek(2).
    pub(in crate::image) fn write(&mut self, bytes: &[u8]) -> Result<(), ObjectError> {
        self.hasher.update(bytes);
        self.file.write(bytes)
    }

    /// Appends `count` zeros as a hole: they take no space, and hardly any time.
    pub(in crate::image) fn zeros(&mut self, count: u64) {
        self.hasher.zeros(count);
        self.file.hole(count);
    }

    /// Bytes written so far.
    #[cfg(test)]
    pub(super) fn size(&self) -> u64 {
        self.file.size()
    }

    /// Gives the content its name.
    ///
    /// # Errors
    /// As [`Objects::put`].
    pub(in crate::image) fn finish(self) -> Result<(VerityDigest, Put), ObjectError> {
        let (digest, size) = (self.hasher.finish(), self.file.size());
        self.objects.keep(&digest)?;
        if self.objects.contains(&digest, size)? {
            return Ok((digest, Put::Present));
        }
        // What was written so far has no name, and goes before most of it has reached the disk.
        if let Some(put) = self.objects.adopt(&digest, size)? {
            return Ok((digest, put));
        }
        let put = self.objects.publish(self.file.finish()?, &digest, size)?;
        Ok((digest, put))
    }
}
