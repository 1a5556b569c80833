//! The Unix socket: its path, its permissions, and what happens if the path exists.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixSocket};

use crate::kind::Kind;

/// Longest path that fits `sockaddr_un` with its final NUL (unix(7)).
const PATH_MAX: usize = 107;
/// The number of connections that may wait for accept.
const BACKLOG: u32 = 128;

/// Where to serve: the value of `CSI_ENDPOINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The setting is not a Unix socket, or its path cannot be used.
    #[error("endpoint {text:?} {problem}; set CSI_ENDPOINT to unix:///path/to/csi.sock")]
    Malformed {
        /// The setting.
        text: String,
        /// What is wrong, a predicate.
        problem: &'static str,
    },
    /// Another process accepts connections there.
    #[error("a process is serving on {} already; stop it, or choose another CSI_ENDPOINT", path.display())]
    Served {
        /// The socket.
        path: PathBuf,
    },
    /// The path exists and is not a socket. It is left alone.
    #[error("{} exists and is not a socket; remove it, or choose another CSI_ENDPOINT", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {step} {}: {error}; its directory must exist and be writable", path.display())]
    System {
        /// The attempted step, a verb.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl EndpointError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } => Kind::Invalid,
            Self::Served { .. } => Kind::Busy,
            Self::NotASocket { .. } => Kind::Conflict,
            Self::System { .. } => Kind::Unsupported,
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Accepts `unix:///path`, `unix://path`, `unix:path` and a plain path.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = |problem| EndpointError::Malformed { text: text.to_owned(), problem };
        let path = match text.strip_prefix("unix:") {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if text.contains("://") => return Err(malformed("is not a Unix socket")),
            None => text,
        };
        if path.is_empty() || path.ends_with('/') {
            return Err(malformed("names no socket"));
        }
        if path.contains('\0') || path.len() > PATH_MAX {
            return Err(malformed("is longer than a socket's path may be (107 bytes), or holds a NUL"));
        }
        Ok(Self(path.into()))
    }
}

impl Endpoint {
    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Creates the socket with mode 0600 and listens.
    ///
    /// An existing socket on which no process listens is replaced: a killed plugin leaves one. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// Another process serves there, the path is not a socket, or a system call fails.
    pub fn listen(&self) -> Result<ListeningSocket, EndpointError> {
        let failed =
            |step| move |error: io::Error| EndpointError::System { step, path: self.0.clone(), error };
        self.clear()?;
        let socket = UnixSocket::new_stream().map_err(failed("make a socket for"))?;
        // bind(2) creates the name with the mode of the socket's inode, less the umask (net/unix/af_unix.c), so
        // that the name never exists with a wider mode.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed("restrict access to")(errno.into()))?;
        socket.bind(&self.0).map_err(failed("bind"))?;
        let listener = socket.listen(BACKLOG).map_err(failed("listen on"))?;
        let made = fs::symlink_metadata(&self.0).map_err(failed("stat"))?;
        Ok(ListeningSocket {
            listener,
            owned: OwnedName { path: self.0.clone(), identity: (made.dev(), made.ino()) },
        })
    }

    /// Removes a stale socket.
    fn clear(&self) -> Result<(), EndpointError> {
        let path = || self.0.clone();
        let failed = |step, error| EndpointError::System { step, path: path(), error };
        match fs::symlink_metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("stat", error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(EndpointError::NotASocket { path: path() });
            }
            Ok(_) => {}
        }
        // Only a connection tells a stale socket from one in use.
        match UnixStream::connect(&self.0) {
            Ok(_) => Err(EndpointError::Served { path: path() }),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(&self.0).map_err(|error| failed("remove the stale", error))
            }
            Err(error) => Err(failed("probe", error)),
        }
    }
}

/// A socket that accepts connections.
#[derive(Debug)]
pub struct ListeningSocket {
    pub(super) listener: UnixListener,
    pub(super) owned: OwnedName,
}

/// Removes the socket's name when dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct OwnedName {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for OwnedName {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn endpoint(path: &Path) -> Endpoint {
        path.to_str().unwrap().parse().unwrap()
    }

    #[test]
    fn the_usual_spellings() {
        for text in ["unix:///csi/csi.sock", "unix:/csi/csi.sock", "/csi/csi.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().path(), Path::new("/csi/csi.sock"));
        }
        assert_eq!("unix://csi.sock".parse::<Endpoint>().unwrap().path(), Path::new("csi.sock"));
        for bad in ["", "unix://", "tcp://1.2.3.4:5", "/csi/", &format!("/{}", "x".repeat(107))] {
            assert_eq!(bad.parse::<Endpoint>().unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    #[tokio::test]
    async fn the_socket_is_private_and_goes_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        let listening = endpoint(&path).listen().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listening);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "what a killed process leaves");
        let first = endpoint(&path).listen().unwrap();
        assert!(matches!(endpoint(&path).listen(), Err(EndpointError::Served { .. })));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(endpoint(&path).listen(), Err(EndpointError::NotASocket { .. })));
        drop(first);
        assert_eq!(fs::read(&path).unwrap(), b"precious", "not ours any more, so not removed");
    }
}
