//! The users of a pod with a user namespace, from kubelet's own file.
//!
//! Nothing in CSI says that a pod has `hostUsers: false`. Kubelet chooses the pod's ids when it makes the sandbox, after the
//! volumes are published, and writes them to `<kubelet>/pods/<uid>/userns` before it asks the runtime for anything (from its
//! source, `pkg/kubelet/userns`). Only such pods have the file. It lies in a directory that only root can write to, and is
//! looked for only in that of the pod whose target it is about: the ids decide who may read a file of mode 0600.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::kind::Kind;
use crate::node::mount::IdRange;

/// The file's name.
pub(crate) const FILE: &str = "userns";
/// Kubelet's file has about 150 bytes.
const MOST: u64 = 4096;
/// Kubelet gives no pod ids below (`userNsUnitLength`): those are the node's own.
const LEAST_FIRST: u32 = 65_536;

/// Why the users of a pod are not known.
#[derive(Debug, thiserror::Error)]
pub enum PodUsersError {
    /// The file cannot be read.
    #[error("the users of the pod cannot be read from {}: {error}; the pod cannot have this volume before", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The pod's volume follows a tag.
    #[error(
        "a volume that follows a tag cannot be had by a pod with a user namespace; leave out `follow`, or hostUsers: false"
    )]
    Following,
    /// The file is not as kubelet writes it.
    #[error(
        "the users of the pod in {} are not as kubelet gives them: {why}; is this kubelet newer than the driver?",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl PodUsersError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { .. } => Kind::Transient,
            Self::Following | Self::Unknown { .. } => Kind::Unsupported,
        }
    }
}

/// The file's content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

/// The users of the pod with this directory; `None` if it has those of the node, or its sandbox is not made yet. Blocking.
///
/// # Errors
/// The file cannot be read, or is not as kubelet writes it.
pub(super) fn read(pod: &Path) -> Result<Option<IdRange>, PodUsersError> {
    let path = pod.join(FILE);
    let mut text = Vec::new();
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    match opened.and_then(|file| file.take(MOST).read_to_end(&mut text)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PodUsersError::Unreadable { path, error }),
        Ok(_) => {}
    }
    parse(&text).map(Some).map_err(|why| PodUsersError::Unknown { path, why })
}

/// Parses the file. As in kubelet, users and groups have one and the same mapping, which begins with root.
fn parse(text: &[u8]) -> Result<IdRange, String> {
    let Mappings { uid_mappings, gid_mappings } =
        serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let [ids] = uid_mappings.as_slice() else { return Err("there is not one mapping of users".to_owned()) };
    if gid_mappings.as_slice() != [*ids] {
        return Err("groups are mapped otherwise than users".to_owned());
    }
    let Mapping { host_id: first, container_id, length } = *ids;
    if container_id != 0 || first < LEAST_FIRST || length == 0 || first.checked_add(length).is_none() {
        return Err(format!("{length} ids from {container_id} are those from {first}"));
    }
    Ok(IdRange { first, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(uids: &str, gids: &str) -> String {
        format!(r#"{{"uidMappings":[{uids}],"gidMappings":[{gids}]}}"#)
    }

    fn ids(first: u64, container: u32, length: u64) -> String {
        format!(r#"{{"hostId":{first},"containerId":{container},"length":{length}}}"#)
    }

    #[test]
    fn kubelets_file_and_what_is_none() {
        let good = ids(131_072, 0, 65_536);
        let parsed = parse(text(&good, &good).as_bytes()).unwrap();
        assert_eq!(parsed, IdRange { first: 131_072, length: 65_536 });
        for (uids, gids) in [
            (String::new(), String::new()),
            (format!("{good},{good}"), good.clone()),
            (good.clone(), ids(196_608, 0, 65_536)),
            (ids(0, 0, 65_536), ids(0, 0, 65_536)),
            (ids(65_535, 0, 65_536), ids(65_535, 0, 65_536)),
            (ids(131_072, 1, 65_536), ids(131_072, 1, 65_536)),
            (ids(131_072, 0, 0), ids(131_072, 0, 0)),
            (ids(4_294_901_760, 0, 131_072), ids(4_294_901_760, 0, 131_072)),
            (ids(1 << 33, 0, 65_536), ids(1 << 33, 0, 65_536)),
        ] {
            assert!(parse(text(&uids, &gids).as_bytes()).is_err(), "{uids} {gids}");
        }
        for bad in ["", "{", "null", "[]"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pod_without_the_file_has_the_nodes_users() {
        let pod = tempfile::tempdir().unwrap();
        assert_eq!(read(pod.path()).unwrap(), None);
        assert_eq!(read(&pod.path().join("gone")).unwrap(), None);
        let file = pod.path().join(FILE);
        std::fs::write(&file, "x".repeat(10_000)).unwrap();
        let error = read(pod.path()).unwrap_err();
        assert!(error.to_string().contains("userns") && error.kind() == Kind::Unsupported, "{error}");
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
        assert_eq!(read(pod.path()).unwrap_err().kind(), Kind::Transient, "no link is followed");
    }
}
