//! The node key: 32 secret bytes outside the store, with which this node authenticates its own records.
//!
//! A process that can write to the store's directory but cannot read the key cannot make a record that is believed. The
//! key never leaves the node and authenticates nothing to others. Losing it costs one pull per image.
//!
//! Every code is made for a *domain*, a fixed string for each sort of record, so that bytes of one sort never pass
//! as another. It covers the length of each part, so that no two lists of parts give the same input.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use sha2::Sha256;

use crate::kind::Kind;

/// Bytes of a node key, and of its file.
pub const KEY_LENGTH: usize = 32;
/// Bytes of an authentication code.
pub(super) const MAC_LENGTH: usize = 32;
/// What HMAC-SHA256 takes a key as: a block, filled up with zeros (RFC 2104, section 2).
const BLOCK: usize = 64;

/// The node's key. Clones share it; it is never shown.
#[derive(Clone)]
pub struct NodeKey(Arc<[u8; BLOCK]>);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey([redacted])")
    }
}

/// Why there is no node key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A system call failed.
    #[error("cannot {doing} the node key {}: {source}; choose its place with --node-key", path.display())]
    Io {
        /// What was tried, a verb.
        doing: &'static str,
        /// The key's file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a directory, a device, a pipe.
    #[error("the node key {} is not a file; remove it, or choose another place with --node-key", path.display())]
    NotAFile {
        /// The key's file.
        path: PathBuf,
    },
    /// It has another length than a key.
    #[error(
        "the node key {} has {found} bytes instead of {KEY_LENGTH}; put the right key back, or remove the file: a new \
         key is made at the next start, and every image is then pulled and verified anew",
        path.display()
    )]
    Length {
        /// The key's file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// Others could have read or written it.
    #[error(
        "the node key {} can be read or written by others (mode {mode:04o}), so records made with it prove nothing; \
         remove it: a new key is made at the next start, and every image is then pulled and verified anew. If you \
         know that nobody has read it, `chmod 0600` is enough",
        path.display()
    )]
    Mode {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user made it.
    #[error(
        "the node key {} belongs to user {found}, and this process runs as {expected}; remove it, or `chown` it if you \
         know where it comes from",
        path.display()
    )]
    Owner {
        /// The key's file.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// Who this process runs as.
        expected: u32,
    },
}

impl KeyError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Kind::Exhausted,
            Self::Io { .. } => Kind::Unsupported,
            Self::NotAFile { .. } | Self::Length { .. } => Kind::Corrupt,
            Self::Mode { .. } | Self::Owner { .. } => Kind::Denied,
        }
    }
}

impl NodeKey {
    /// The key that is these bytes.
    pub fn from_bytes(bytes: &[u8; KEY_LENGTH]) -> Self {
        let mut block = [0; BLOCK];
        block[..KEY_LENGTH].copy_from_slice(bytes);
        Self(Arc::new(block))
    }

    /// Reads the key in `path`, making it if there is none: 32 random bytes, mode 0600, whole or not there at all
    /// whenever the process is killed. Of several processes at once one makes it.
    ///
    /// # Errors
    /// The file is no key, or other users have access to it; and those of the filesystem.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        create(path)?;
        tracing::info!(node_key = %path.display(), "a new node key was made");
        // Not the bytes just made: another process may have been quicker, and its key is the one that stays.
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        Self::load(path)?.ok_or_else(|| failed("read", path)(gone()))
    }

    fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        // NONBLOCK so as not to hang on a pipe, NOCTTY so as not to take a terminal.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => File::from(other.map_err(|errno| failed("open", path)(errno.into()))?),
        };
        let found = file.metadata().map_err(failed("inspect", path))?;
        let at = || path.to_owned();
        if !found.is_file() {
            return Err(KeyError::NotAFile { path: at() });
        }
        let expected = rustix::process::geteuid().as_raw();
        if found.uid() != expected {
            return Err(KeyError::Owner { path: at(), found: found.uid(), expected });
        }
        // Writing the key is as bad as reading it.
        if found.mode() & 0o077 != 0 {
            return Err(KeyError::Mode { path: at(), mode: found.mode() & 0o7777 });
        }
        if found.len() != KEY_LENGTH as u64 {
            return Err(KeyError::Length { path: at(), found: found.len() });
        }
        let mut bytes = [0; KEY_LENGTH];
        (&file).read_exact(&mut bytes).map_err(failed("read", path))?;
        Ok(Some(Self::from_bytes(&bytes)))
    }

    /// The code of `parts` in `domain`.
    pub(super) fn mac(&self, domain: &str, parts: &[&[u8]]) -> [u8; MAC_LENGTH] {
        self.over(domain, parts).finalize().into_bytes().into()
    }

    /// Whether `mac` is the code of `parts` in `domain`; takes the same time whatever differs.
    #[must_use]
    pub(super) fn verify(&self, domain: &str, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.over(domain, parts).verify_slice(mac).is_ok()
    }

    fn over(&self, domain: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hmac = Hmac::<Sha256>::new((&*self.0).into());
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            hmac.update(&(part.len() as u64).to_le_bytes());
            hmac.update(part);
        }
        hmac
    }

    /// A JSON object with its own code as the last member, `"mac"`. It stays readable with jq, and what a later
    /// release adds to it changes nothing about how the code is checked.
    pub fn append_mac(&self, domain: &str, object: &[u8]) -> Vec<u8> {
        let open = object.strip_suffix(b"}").unwrap_or(object);
        // Over the bytes as they are written, so that no canonical form of JSON is needed.
        let mac = hex::encode(self.mac(domain, &[open]));
        [open, JSON_BEFORE, mac.as_bytes(), JSON_AFTER].concat()
    }

    /// Whether `bytes` are what [`NodeKey::append_mac`] made of an object in `domain`.
    #[must_use]
    pub(super) fn authenticates(&self, domain: &str, bytes: &[u8]) -> bool {
        let split = |bytes: &[u8]| -> Option<([u8; MAC_LENGTH], usize)> {
            let rest = bytes.strip_suffix(JSON_AFTER)?;
            let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(2 * MAC_LENGTH)?)?;
            let mut mac = [0; MAC_LENGTH];
            hex::decode_to_slice(digits, &mut mac).ok()?;
            Some((mac, rest.strip_suffix(JSON_BEFORE)?.len()))
        };
        split(bytes).is_some_and(|(mac, length)| self.verify(domain, &[&bytes[..length]], &mac))
    }
}

const JSON_BEFORE: &[u8] = b",\"mac\":\"";
const JSON_AFTER: &[u8] = b"\"}\n";

/// Makes the key's file, unless another process is quicker: an unnamed file, linked when it is whole and on disk. Not
/// by [`crate::durable_file`], whose rename would replace the key that another process has just made.
fn create(path: &Path) -> Result<(), KeyError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make room for", path))?;
    let mut bytes = [0; KEY_LENGTH];
    openssl::rand::rand_bytes(&mut bytes)
        .map_err(|error| failed("find random bytes for", path)(io::Error::other(error)))?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = rustix::fs::open(directory, flags, mode)
        .map(File::from)
        .map_err(|errno| failed("create", path)(errno.into()))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))?;
    // By way of /proc: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH before Linux 6.10.
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    match rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        // Another process was quicker; its key is read afterwards.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("name", path)(errno.into())),
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    move |source| KeyError::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
