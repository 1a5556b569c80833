//! What references resolved to, so that a node can answer without its registry: `names/<hash>.json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, json_of};
use crate::image::store::held::Held;
use crate::image::store::hold::Hold;
use crate::image::store::key::NodeKey;
use crate::image::store::record::{self, Record};
use crate::image::store::useless::Useless;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;

/// One name. It repeats what it is about, since the file's name is only a hash of that.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NameRecord {
    name: String,
    platform: String,
    manifest: Digest,
}

impl Record for NameRecord {
    const DOMAIN: &'static str = "name record";
    /// Format 1 carried no code.
    const FORMAT: Option<u32> = Some(2);
}

/// The names that a store knows.
#[derive(Debug)]
pub struct Names {
    disk: Disk,
    key: NodeKey,
    directory: PathBuf,
}

impl Names {
    pub(in crate::image::store) const DIRECTORY: &str = "names";

    pub(in crate::image::store) fn new(disk: &Disk, key: &NodeKey) -> Self {
        Self { disk: disk.clone(), key: key.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// The manifest that the canonical reference `name` last resolved to for `platform`; the image
    /// itself may be gone. An unreadable file is an unknown name.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn resolve(&self, name: &str, platform: &Platform) -> Result<Option<Digest>, StoreError> {
        let platform = platform.to_string();
        let Some(bytes) = self.disk.read(&self.path(name, &platform))? else { return Ok(None) };
        // The file may be one that was moved here.
        Ok(self
            .decode(&bytes)
            .filter(|record| record.name == name && record.platform == platform)
            .map(|record| record.manifest))
    }

    /// Remembers that each of `names` resolved to `manifest` for `platform`. Durable, and free when
    /// nothing changes. The hold keeps the names until the image is here.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn remember(
        &self,
        hold: &Hold,
        names: &[String],
        platform: &Platform,
        manifest: Digest,
    ) -> Result<(), StoreError> {
        for name in names {
            // The usual case: a pod starts again.
            if self.resolve(name, platform)? == Some(manifest) {
                continue;
            }
            let platform = platform.to_string();
            let file = Self::file(name, &platform);
            hold.keep_blocking(&[Held::Name(file), Held::Manifest(manifest)])?;
            let path = self.directory.join(json_of(&file));
            let record = NameRecord { name: name.clone(), platform, manifest };
            let bytes = record::encode(&record, &self.key)
                .map_err(|error| self.disk.error("encode", &path, error.into()))?;
            self.disk.write_durably(&path, &bytes)?;
        }
        Ok(())
    }

    /// Finds or removes the names of images that are gone, and what is no name, but for files that are `held`.
    pub(in crate::image::store) fn sweep(
        &self,
        useless: &mut Useless,
        held: impl Fn(&Digest) -> bool,
        has_image: impl Fn(&Digest) -> bool,
    ) -> Result<(), StoreError> {
        useless.sweep_files(&self.disk, &self.directory, |name| {
            if digest_of(name, ".json").is_some_and(|file| held(&file)) {
                return Ok(false);
            }
            let bytes = self.disk.read(&self.directory.join(name))?;
            let record = bytes.as_deref().and_then(|bytes| self.decode(bytes));
            Ok(record.is_none_or(|record| !has_image(&record.manifest)))
        })
    }

    /// `None` for what a power cut left or another writer made: the registry is asked then.
    fn decode(&self, bytes: &[u8]) -> Option<NameRecord> {
        record::decode(bytes, &self.key).ok()
    }

    fn path(&self, name: &str, platform: &str) -> PathBuf {
        self.directory.join(json_of(&Self::file(name, platform)))
    }

    /// What the file of `name` for `platform` is called by: the pair is hashed, since a reference may be longer than a
    /// file name and has slashes.
    fn file(name: &str, platform: &str) -> Digest {
        Digest::of(format!("{name}\0{platform}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable_file::Steps;

    #[test]
    fn each_platform_has_a_file_of_its_own() {
        let disk = Disk::new("/s".as_ref(), Steps::default());
        let names = Names::new(&disk, &NodeKey::from_bytes(&[1; 32]));
        assert_ne!(names.path("a", "b"), names.path("a", "c"));
    }
}
