//! Where things are in a store's directory. Names only; nothing here touches the disk.

use std::path::{Path, PathBuf};

use crate::oci::digest::Digest;

/// Directories of a store, besides its root. `objects/xx` are made by the objects themselves.
pub(super) const DIRECTORIES: [&str; 14] = [
    "tmp", "dirty", "objects", "layers", "staging", "blobs", "fetched", "images", "access", "dossiers",
    "names", "digests", "pins", "volumes",
];

/// Paths of one store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
    boot_id: String,
}

impl Layout {
    /// The store in `root`, seen from the boot `boot_id`.
    pub(super) fn new(root: &Path, boot_id: &str) -> Self {
        Self { root: root.to_owned(), boot_id: boot_id.to_owned() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Present while some objects may lack fs-verity.
    pub(super) fn unsealed(&self) -> PathBuf {
        self.root.join("unsealed")
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn dirty(&self) -> PathBuf {
        self.root.join("dirty")
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    /// Layer records that no sync of this boot has covered yet.
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging").join(&self.boot_id)
    }

    pub(super) fn staged(&self, diff_id: &Digest) -> PathBuf {
        self.staging().join(diff_id.hex())
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, blob: &Digest) -> PathBuf {
        self.blobs().join(blob.hex())
    }

    /// Marks of blobs, see `marks.rs`.
    pub(super) fn fetched(&self) -> PathBuf {
        self.root.join("fetched")
    }

    /// Marks of images, see `marks.rs`.
    pub(super) fn access(&self) -> PathBuf {
        self.root.join("access")
    }

    pub(super) fn evidence(&self) -> PathBuf {
        self.root.join("dossiers")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn image(&self, manifest: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", manifest.hex()))
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// The file of `name` for `platform`; the pair is hashed, since a reference may be longer than
    /// a file name and has slashes.
    pub(super) fn name(&self, name: &str, platform: &str) -> PathBuf {
        let key = Digest::of(format!("{name}\0{platform}").as_bytes());
        self.names().join(format!("{}.json", key.hex()))
    }

    pub(super) fn digests(&self) -> PathBuf {
        self.root.join("digests")
    }

    /// The first digest of the image with this manifest.
    pub(super) fn first_digest(&self, manifest: &Digest) -> PathBuf {
        self.digests().join(format!("{}.json", manifest.hex()))
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(super) fn pin(&self, manifest: &Digest) -> PathBuf {
        self.pins().join(manifest.hex())
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
}

/// The digest that a file is named by, `suffix` removed; `None` for a file of another sort.
pub(super) fn digest_of(name: &std::ffi::OsStr, suffix: &str) -> Option<Digest> {
    let hex = name.to_str()?.strip_suffix(suffix)?;
    format!("sha256:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_give_digests_back() {
        let digest = Digest::of(b"x");
        let layout = Layout::new(Path::new("/s"), "boot");
        assert_eq!(layout.image(&digest).file_name().and_then(|n| digest_of(n, ".json")), Some(digest));
        assert_eq!(layout.staged(&digest), Path::new("/s/staging/boot").join(digest.hex()));
        assert_eq!(digest_of("abc.json".as_ref(), ".json"), None);
        assert_ne!(layout.name("a", "b"), layout.name("a", "c"));
    }
}
