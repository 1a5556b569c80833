//! SELinux labels of mounts.
//!
//! The files of an image carry no labels: what one node's policy calls them is no business of the image's. Without a
//! `context=` the kernel takes them for unlabelled, and an enforcing policy lets no container read that. So each image
//! is mounted with one label that every container may read and none may write, without categories, so that
//! containers of different categories share the mount. A mount with a context does not show `seclabel`, by which
//! kubelet tells volumes that it must have relabelled: it leaves these alone, read-only or not.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use rustix::io::Errno;

use super::superblock::proc_path;

/// What container runtimes give to read-only layers of container images.
const READ_ONLY: &str = "system_u:object_r:container_ro_file_t:s0";
/// What they give to containers' own files. Policies that keep the former for the runtime (Bottlerocket's) let plugins
/// mount with this one. Containers may write by it, which a read-only mount does not care about.
const WRITABLE: &str = "system_u:object_r:container_file_t:s0";

/// The extended attribute that is a file's label.
pub(super) const ATTRIBUTE: &str = "security.selinux";

/// How mounts are to be labelled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SelinuxContext {
    /// Where SELinux is on, with the first label that it accepts of those that all containers may read.
    #[default]
    Auto,
    /// Not at all: the policy says what files without labels are.
    Policy,
    /// With this label, where SELinux is on.
    Label(String),
}

/// A text that is no setting.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no SELinux label; give auto, none, or user:role:type:level such as system_u:object_r:container_ro_file_t:s0"
)]
pub struct BadContext(String);

impl FromStr for SelinuxContext {
    type Err = BadContext;

    fn from_str(text: &str) -> Result<Self, BadContext> {
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::Policy),
            _ => {}
        }
        // The level has colons of its own (s0:c1,c2), and policies without levels have none.
        let mut parts = text.splitn(4, ':');
        let sound = |part: Option<&str>| {
            part.is_some_and(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\=".contains(&b))
            })
        };
        let named = (0..3).all(|_| sound(parts.next()));
        let level = parts.next();
        if named && (level.is_none() || sound(level)) {
            Ok(Self::Label(text.to_owned()))
        } else {
            Err(BadContext(text.to_owned()))
        }
    }
}

impl fmt::Display for SelinuxContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Policy => "none",
            Self::Label(label) => label,
        })
    }
}

impl SelinuxContext {
    /// The labels to try where SELinux is on, best first; none where none is wanted.
    pub(super) fn candidates(&self) -> Vec<&str> {
        match self {
            Self::Auto => vec![READ_ONLY, WRITABLE],
            Self::Policy => Vec::new(),
            Self::Label(label) => vec![label],
        }
    }

    /// Whether a node must not start without the label.
    pub(super) fn is_demanded(&self) -> bool {
        matches!(self, Self::Label(_))
    }
}

/// How mounts of this store are labelled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labelling {
    /// The mount option `context=`.
    pub context: Option<String>,
    /// What files are then labelled, in the policy's own words (a context may name an alias); a mount with another
    /// label was made with another setting. Without SELinux there is none.
    pub label: Option<String>,
}

impl Labelling {
    /// The label for the store's objects, if it is one for them: not that by which containers may write.
    pub(super) fn of_objects(&self) -> Option<&str> {
        let context = self.context.as_deref()?;
        if context == WRITABLE { None } else { self.label.as_deref() }
    }
}

/// Whether SELinux is on and has a policy. In a container, too, where /sys/fs/selinux usually is not mounted.
pub(super) fn is_on() -> bool {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    has_policy(&read("/proc/filesystems"), &read("/proc/thread-self/attr/current"))
}

/// The kernel registers selinuxfs where SELinux was not switched off at boot. Before there is a policy every process
/// is called `kernel`.
fn has_policy(filesystems: &[u8], own_label: &[u8]) -> bool {
    let selinux = filesystems.split(|byte| *byte == b'\n').any(|line| line.ends_with(b"\tselinuxfs"));
    selinux && own_label.contains(&b':')
}

/// The label of a mount's root.
pub(super) fn label_of(mount: &OwnedFd) -> Result<Option<String>, Errno> {
    // By path: the descriptor may be one that cannot be read from.
    label_at(Path::new(&proc_path(mount.as_fd())))
}

/// The label of a file.
pub(super) fn label_at(path: &Path) -> Result<Option<String>, Errno> {
    let mut buffer = [0; 1024];
    match rustix::fs::getxattr(path, ATTRIBUTE, &mut buffer) {
        Ok(length) => {
            let label = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            Ok(Some(label.trim_end_matches('\0').to_owned()))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_written() {
        for text in
            ["auto", "none", "system_u:object_r:container_ro_file_t:s0", "u:object_r:t", "u:r:t:s0:c1,c2"]
        {
            let setting: SelinuxContext = text.parse().unwrap();
            assert_eq!(setting.to_string(), text);
        }
        assert_eq!(SelinuxContext::default(), "auto".parse().unwrap());
        for text in [
            "",
            "Auto",
            "container_ro_file_t",
            "a:b",
            "a::c:s0",
            "a:b:c:",
            "a:b:c d:s0",
            "a:b:\"c:s0",
            "a:b:c\n",
        ] {
            assert_eq!(text.parse::<SelinuxContext>(), Err(BadContext(text.to_owned())));
        }
    }

    #[test]
    fn only_auto_has_a_second_choice() {
        assert_eq!(SelinuxContext::Auto.candidates(), [READ_ONLY, WRITABLE]);
        assert!(SelinuxContext::Policy.candidates().is_empty());
        let label = SelinuxContext::Label("u:r:t:s0".into());
        assert_eq!(label.candidates(), ["u:r:t:s0"]);
        assert!(label.is_demanded() && !SelinuxContext::Auto.is_demanded());
    }

    #[test]
    fn objects_get_no_label_by_which_containers_write() {
        let with = |context: Option<&str>| Labelling {
            context: context.map(ToOwned::to_owned),
            label: Some("system_u:object_r:some_t:s0".into()),
        };
        assert_eq!(
            with(Some(READ_ONLY)).of_objects(),
            Some("system_u:object_r:some_t:s0"),
            "as the policy calls it"
        );
        assert_eq!(with(Some(WRITABLE)).of_objects(), None);
        assert_eq!(with(None).of_objects(), None);
    }

    #[test]
    fn selinux_is_on_once_it_has_a_policy() {
        let with = b"nodev\tsysfs\nnodev\tselinuxfs\n\text4\n";
        assert!(has_policy(with, b"system_u:system_r:spc_t:s0\0"));
        assert!(!has_policy(with, b"kernel\0"), "no policy yet");
        assert!(!has_policy(b"nodev\tsysfs\n", b"docker-default (enforce)\n"), "AppArmor");
        assert!(!has_policy(b"nodev\tsysfs\n", b"x:y\n"), "a profile of AppArmor may have any name");
        assert!(!has_policy(b"", b""));
    }
}
