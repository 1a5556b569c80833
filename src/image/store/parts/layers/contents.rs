//! The files of layers by the sha256 of their content: `contents/<blob hex>`.
//!
//! A file is a list ([`crate::image::chunked`]) and the node key's code over what it is named by and its checksum. It is
//! named by the bytes that were fetched, as the access records are: by them it is decided who may profit from it. It is
//! written without a sync and goes with the blob's DiffID; one that is lost or torn costs bytes on the wire. What it names
//! is here as long as the layer's record is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Layers, open};
use crate::durable_file::Temporary;
use crate::image::chunked::{ContentsEntry, ContentsReader, ContentsWriter, StoredContent, Toc};
use crate::image::entry::EntryKind;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::digest_of;
use crate::image::store::key::MAC_LENGTH;
use crate::image::store::useless::Useless;
use crate::oci::digest::Digest;

/// What the codes of these lists are made for.
const DOMAIN: &str = "layer contents";
/// Bytes of a list that is written or read.
const LIST_MAX: u64 = 128 << 20;

impl Layers {
    /// Lists the files of a stored layer, of which `toc` says what is in them. `fetched` are the bytes that came: the blob,
    /// or the layer itself. Survives a power cut after the next commit.
    ///
    /// # Errors
    /// Those of reading the layer's record and writing the list.
    pub fn list_contents(&self, fetched: &Digest, diff_id: &Digest, toc: &Toc) -> Result<(), StoreError> {
        let files: HashMap<&[u8], _> = toc.files.iter().map(|file| (clean(&file.name), file)).collect();
        let path = self.contents_path(fetched);
        let failed = |error| self.disk.error("write", &path, error);
        let mut writer = ContentsWriter::new(ListFile {
            disk: &self.disk,
            temporary: self.disk.temporary()?,
            left: LIST_MAX,
        });
        for entry in self.entries(diff_id)? {
            let entry = entry?;
            let content = match entry.kind {
                EntryKind::Object(object, _) => StoredContent::Object(object),
                EntryKind::Inline(bytes) if !bytes.is_empty() => StoredContent::Inline(bytes),
                _ => continue,
            };
            if let Some(file) = files.get(&*entry.path) {
                writer.push(&ContentsEntry::of(toc, file, content)).map_err(failed)?;
            }
        }
        let (mut list, checksum) = writer.finish().map_err(failed)?;
        let mac = self.key.mac(DOMAIN, &[fetched.as_bytes(), checksum.as_bytes()]);
        list.write_all(&mac).map_err(failed)?;
        list.temporary.rename(&path).map_err(|error| self.disk.failed(error))
    }

    /// What lists there are of, the newest first.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn contents(&self) -> Result<Vec<Digest>, StoreError> {
        let mut found = Vec::new();
        for entry in self.disk.read_directory(&self.contents)? {
            let entry = entry.map_err(|error| self.disk.error("list", &self.contents, error))?;
            let Some(fetched) = digest_of(&entry.file_name(), "") else { continue };
            // One that is gone meanwhile is none.
            let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
            found.push((modified, fetched));
        }
        found.sort_unstable_by(|a: &(SystemTime, Digest), b| b.cmp(a));
        Ok(found.into_iter().map(|(_, fetched)| fetched).collect())
    }

    /// Reads the list of a layer. Returns its bytes; `None` if there is no list that this node has written, and then
    /// nothing that was visited counts.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn read_contents(
        &self,
        fetched: &Digest,
        mut visit: impl FnMut(ContentsEntry),
    ) -> Result<Option<u64>, StoreError> {
        let path = self.contents_path(fetched);
        let (file, length) =
            match open(&path).and_then(|file| file.metadata().map(|found| (file, found.len()))) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.disk.error("open", &path, error)),
            };
        let authentic = match length.checked_sub(MAC_LENGTH as u64).filter(|end| *end <= LIST_MAX) {
            Some(end) => self.read_list(&file, end, fetched, &mut visit),
            None => false,
        };
        if !authentic {
            tracing::warn!(path = %path.display(), "a list of contents is torn or was altered, and is not used");
        }
        Ok(authentic.then_some(length))
    }

    fn read_list(
        &self,
        file: &File,
        end: u64,
        fetched: &Digest,
        visit: &mut impl FnMut(ContentsEntry),
    ) -> bool {
        let mut mac = [0; MAC_LENGTH];
        let source = BufReader::with_capacity(64 << 10, file.take(end));
        let (Ok(()), Ok(mut reader)) = (file.read_exact_at(&mut mac, end), ContentsReader::new(source))
        else {
            return false;
        };
        loop {
            match reader.next_entry() {
                Ok(Ok(entry)) => visit(entry),
                Ok(Err(checksum)) => {
                    return self.key.verify(DOMAIN, &[fetched.as_bytes(), checksum.as_bytes()], &mac);
                }
                Err(_) => return false,
            }
        }
    }

    /// Finds or removes the lists of layers that are gone.
    pub(in crate::image::store) fn sweep_contents(
        &self,
        useless: &mut Useless,
        has_layer: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        useless.sweep_files(&self.disk, &self.contents, |name| match digest_of(name, "") {
            Some(fetched) => Ok(!has_layer(&fetched)?),
            None => Ok(false),
        })
    }

    fn contents_path(&self, fetched: &Digest) -> PathBuf {
        self.contents.join(fetched.hex())
    }
}

/// A list being written, within the room that others need and the bound of a list.
struct ListFile<'a> {
    disk: &'a Disk,
    temporary: Temporary,
    left: u64,
}

impl Write for ListFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        self.left = self.left.checked_sub(length).ok_or(io::ErrorKind::FileTooLarge)?;
        let room = self.disk.room().take(length);
        room.map_err(|short| io::Error::new(io::ErrorKind::StorageFull, short))?;
        self.temporary.file().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A name of a TOC as layer records have it. One that is written in another way is not found, which costs no more than
/// bytes on the wire.
fn clean(name: &str) -> &[u8] {
    name.trim_start_matches("./").trim_start_matches('/').as_bytes()
}
