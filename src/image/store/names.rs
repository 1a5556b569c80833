//! What references resolved to, so that a node can answer without its registry.

use serde::{Deserialize, Serialize};

use super::{NodeKey, Store, StoreError};
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;

/// One name, with what it is about spelled out: the file's name is a hash only.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRecord {
    format: u32,
    name: String,
    platform: String,
    pub(super) manifest: Digest,
}

/// Format 1 carried no code; what it says is unknown.
const FORMAT: u32 = 2;
/// The sort of record, for its code.
const DOMAIN: &str = "name record";

impl Store {
    /// The manifest that the canonical reference `name` last resolved to for `platform`; the image
    /// itself may be gone. An unreadable file is an unknown name.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn resolve(&self, name: &str, platform: &Platform) -> Result<Option<Digest>, StoreError> {
        let platform = platform.to_string();
        let path = self.layout.name(name, &platform);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        Ok(parse(&bytes, &self.key)
            .filter(|record| record.name == name && record.platform == platform)
            .map(|record| record.manifest))
    }

    /// Remembers that each of `names` resolved to `manifest` for `platform`. Durable, and free when
    /// nothing changes.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn remember(
        &self,
        names: &[String],
        platform: &Platform,
        manifest: Digest,
    ) -> Result<(), StoreError> {
        for name in names {
            if self.resolve(name, platform)? == Some(manifest) {
                continue;
            }
            let platform = platform.to_string();
            let path = self.layout.name(name, &platform);
            let record = NameRecord { format: FORMAT, name: name.clone(), platform, manifest };
            let bytes = serde_json::to_vec(&record)
                .map_err(|error| self.disk.error("encode", &path, error.into()))?;
            self.disk.write_durably(&path, &self.key.seal_json(DOMAIN, &bytes))?;
        }
        Ok(())
    }
}

/// A name record; `None` for anything else, such as what a power cut left or somebody else wrote: the registry is
/// asked then.
pub(super) fn parse(bytes: &[u8], key: &NodeKey) -> Option<NameRecord> {
    key.open_json(DOMAIN, bytes).filter(|record: &NameRecord| record.format == FORMAT)
}
