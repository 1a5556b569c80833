//! Target paths: where the orchestrator wants a volume published or staged.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::kind::Kind;

/// A path below the kubelet's directory: absolute, without `..`, normalised.
///
/// A symbolic link in its last component is possible. Code that uses the path must not follow it: see
/// [`TargetPath::inspect`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetPath(PathBuf);

/// Why a path is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// The path is empty.
    #[error("{0} is missing; the caller must name a path")]
    Missing(&'static str),
    /// The path is not one that this driver works on.
    #[error("{field} {path:?} {problem}; it must be an absolute path below {}", root.display())]
    Refused {
        /// The request's field.
        field: &'static str,
        /// Its value.
        path: String,
        /// What is wrong, a predicate.
        problem: &'static str,
        /// The kubelet's directory.
        root: PathBuf,
    },
}

impl TargetError {
    /// Invalid: the caller named the path.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// What is at a target path. Symbolic links are not followed, and mounts are not considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetState {
    /// Nothing.
    Missing,
    /// An empty directory.
    Empty,
    /// A directory that is not empty, possibly by a mount.
    Filled,
    /// A symbolic link, a file or a device: not made by this driver.
    Other,
}

impl TargetPath {
    /// Parses the request's `field`; `root` is the kubelet's directory.
    ///
    /// # Errors
    /// The path is empty, relative, has `..`, or is not below `root`.
    pub(crate) fn parse(field: &'static str, text: &str, root: &Path) -> Result<Self, TargetError> {
        let refused = |problem| TargetError::Refused {
            field,
            // The caller's text may be long; the error must not be.
            path: text.chars().take(256).collect(),
            problem,
            root: root.to_owned(),
        };
        if text.is_empty() {
            return Err(TargetError::Missing(field));
        }
        if text.chars().any(char::is_control) {
            return Err(refused("contains a control character"));
        }
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(refused("is relative"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(refused("contains `..`"));
        }
        // `components` also drops doubled slashes, `.` and a final slash.
        let path: PathBuf = path.components().collect();
        if !path.starts_with(root) || path == root {
            return Err(refused("is not below kubelet's directory"));
        }
        Ok(Self(path))
    }

    /// A path from this driver's own records.
    pub(super) fn recorded(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the path is one of the pod with this unique id: `<kubelet>/pods/<uid>/…`.
    pub(crate) fn is_of_pod(&self, kubelet: &Path, uid: &str) -> bool {
        let below = self.0.strip_prefix(kubelet.join("pods")).ok();
        let directory = below.and_then(|below| below.components().next());
        directory.is_some_and(|directory| directory.as_os_str() == uid)
    }

    /// The directory of the pod that the path is of: `<kubelet>/pods/<uid>`.
    pub(super) fn pod_directory(&self, kubelet: &Path) -> Option<PathBuf> {
        let pods = kubelet.join("pods");
        let uid = self.0.strip_prefix(&pods).ok()?.components().next()?;
        Some(pods.join(uid))
    }

    /// What is at the path now.
    ///
    /// # Errors
    /// The path cannot be examined. `EIO` and `ESTALE` of a broken mount are not errors: they count as
    /// [`TargetState::Filled`], so that the mount can be unmounted.
    pub(crate) fn inspect(&self) -> io::Result<TargetState> {
        let found = match fs::symlink_metadata(&self.0) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TargetState::Missing),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::ESTALE)) => {
                return Ok(TargetState::Filled);
            }
            Err(error) => return Err(error),
        };
        if !found.is_dir() {
            return Ok(TargetState::Other);
        }
        match fs::read_dir(&self.0).map(|mut entries| entries.next()) {
            Ok(None) => Ok(TargetState::Empty),
            Ok(Some(_)) | Err(_) => Ok(TargetState::Filled),
        }
    }
}

/// Whether `path` has gone, below the kubelet's directory `kubelet`: it does not exist, and the directory in which kubelet
/// makes such paths can be seen.
///
/// A path that was not mounted into the plugin's container does not exist there either, and nothing follows from that.
pub(super) fn is_gone(kubelet: &Path, path: &Path) -> bool {
    matches!(TargetPath::recorded(path).inspect(), Ok(TargetState::Missing))
        && place_of(kubelet, path).is_some_and(|place| place.is_dir())
}

/// The directory in which kubelet makes paths such as this one: that of all pods, or that of what a driver stages, which
/// is `plugins/kubernetes.io/csi/<driver>` (before Kubernetes 1.24 `.../pv`). `None` for other paths.
fn place_of(kubelet: &Path, path: &Path) -> Option<PathBuf> {
    const STAGING: &str = "plugins/kubernetes.io/csi";
    let below = path.strip_prefix(kubelet).ok()?;
    let place = match below.strip_prefix(STAGING) {
        Ok(staged) => Path::new(STAGING).join(staged.components().next()?),
        Err(_) => PathBuf::from("pods"),
    };
    // The place itself does not come and go.
    (below.starts_with(&place) && below != place).then(|| kubelet.join(place))
}

impl AsRef<OsStr> for TargetPath {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TargetPath, TargetError> {
        TargetPath::parse("target_path", text, Path::new("/var/lib/kubelet"))
    }

    #[test]
    fn only_paths_below_the_kubelet() {
        for text in ["/var/lib/kubelet/pods/x/mount", "/var/lib/kubelet//pods/./x/mount/"] {
            assert_eq!(parse(text).unwrap().path(), Path::new("/var/lib/kubelet/pods/x/mount"));
        }
        assert_eq!(parse(""), Err(TargetError::Missing("target_path")));
        for bad in [
            "pods/x",
            "/var/lib/kubelet",
            "/var/lib/kubelet/",
            "/var/lib/kubelet/../x",
            "/var/lib/kubelet/pods/../../../../etc",
            "/var/lib/kubelet2/x",
            "/etc",
            "/",
            "/var/lib/kubelet/a\nb",
            "/var/lib/kubelet/a\0b",
        ] {
            assert!(matches!(parse(bad), Err(TargetError::Refused { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_path_tells_its_pod() {
        let kubelet = Path::new("/var/lib/kubelet");
        let is_of = |path: &str, uid: &str| parse(path).unwrap().is_of_pod(kubelet, uid);
        assert!(is_of("/var/lib/kubelet/pods/u1/volumes/kubernetes.io~csi/v/mount", "u1"));
        for (path, uid) in [
            ("/var/lib/kubelet/pods/u1/volumes/u2", "u2"),
            ("/var/lib/kubelet/pods/u1/mount", "u"),
            ("/var/lib/kubelet/pods/u1/mount", ""),
            ("/var/lib/kubelet/pods/u1/mount", "u1/mount"),
            ("/var/lib/kubelet/plugins/u1/mount", "u1"),
        ] {
            assert!(!is_of(path, uid), "{path} {uid}");
        }
        let directory = |path: &str| parse(path).unwrap().pod_directory(kubelet);
        assert_eq!(
            directory("/var/lib/kubelet/pods/u1/volumes/v/mount"),
            Some("/var/lib/kubelet/pods/u1".into())
        );
        assert_eq!(directory("/var/lib/kubelet/plugins/u1/mount"), None);
    }

    #[test]
    fn only_what_could_be_seen_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let kubelet = directory.path();
        let gone = |path: &str| is_gone(kubelet, &kubelet.join(path));
        let paths = [
            "pods/uid/volumes/kubernetes.io~csi/v/mount",
            "plugins/kubernetes.io/csi/d.example/hash/globalmount",
            "plugins/kubernetes.io/csi/pv/pvc-1/globalmount",
            "plugins/kubernetes.io/csi/d.example",
            "elsewhere/v",
        ];
        assert!(paths.iter().all(|path| !gone(path)), "nothing of kubelet's is mounted here");
        for place in ["pods", "plugins/kubernetes.io/csi/d.example", "elsewhere"] {
            fs::create_dir_all(kubelet.join(place)).unwrap();
        }
        assert_eq!(paths.map(gone), [true, true, false, false, false]);
        paths.iter().for_each(|path| fs::create_dir_all(kubelet.join(path)).unwrap());
        assert!(!paths.iter().any(|path| gone(path)));
        assert!(!is_gone(kubelet, Path::new("/nowhere")));
    }

    #[test]
    fn looking_follows_no_link() {
        let directory = tempfile::tempdir().unwrap();
        let look = |name: &str| TargetPath(directory.path().join(name)).inspect().unwrap();
        assert_eq!(look("nothing"), TargetState::Missing);
        fs::create_dir(directory.path().join("d")).unwrap();
        assert_eq!(look("d"), TargetState::Empty);
        std::os::unix::fs::symlink("d", directory.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("dangling")).unwrap();
        assert_eq!((look("link"), look("dangling")), (TargetState::Other, TargetState::Other));
        fs::write(directory.path().join("d/file"), "").unwrap();
        assert_eq!((look("d"), look("d/file")), (TargetState::Filled, TargetState::Other));
    }
}
