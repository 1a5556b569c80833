//! SELinux labels of mounts.
//!
//! The files of an image have no labels, because labels belong to a node's policy. Without `context=` the kernel treats
//! them as unlabelled, and an enforcing policy lets no container read unlabelled files. Each image is therefore mounted
//! with one label that every container may read and none may write. The label has no categories, so that containers of
//! different categories share the mount. kubelet asks for a relabel only of mounts with the option `seclabel`, which a
//! mount with a context does not show.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use rustix::io::Errno;

use super::context::proc_path;

/// The label that container runtimes give to read-only layers of container images.
const READ_ONLY: &str = "system_u:object_r:container_ro_file_t:s0";
/// The label that they give to containers' own files. Policies that reserve [`READ_ONLY`] for the runtime
/// (Bottlerocket's) let plugins mount with this one. It allows containers to write, which a read-only mount prevents.
const WRITABLE: &str = "system_u:object_r:container_file_t:s0";

/// The extended attribute with a file's label.
pub(super) const ATTRIBUTE: &str = "security.selinux";

/// The setting for labels of mounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SelinuxContext {
    /// If SELinux is on, the first label that it accepts of those that all containers may read.
    #[default]
    Auto,
    /// No label: the policy decides how files without labels count.
    Policy,
    /// This label, if SELinux is on.
    Label(String),
}

/// A text that is not a valid setting.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a SELinux label; give auto, none, or user:role:type:level such as system_u:object_r:container_ro_file_t:s0"
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
        // The level may contain colons (s0:c1,c2); policies without MLS have no level.
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
    /// The labels to try if SELinux is on, best first; empty if none is wanted.
    pub(super) fn candidates(&self) -> Vec<&str> {
        match self {
            Self::Auto => vec![READ_ONLY, WRITABLE],
            Self::Policy => Vec::new(),
            Self::Label(label) => vec![label],
        }
    }

    /// Whether the node must not start without the label.
    pub(super) fn is_demanded(&self) -> bool {
        matches!(self, Self::Label(_))
    }
}

/// How mounts of this store are labelled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labelling {
    /// The mount option `context=`.
    pub context: Option<String>,
    /// The label that files then have, as the policy names it (a context may name an alias). A mount with another label
    /// was made with another setting. `None` without SELinux.
    pub label: Option<String>,
}

impl Labelling {
    /// The mount option `context=` of a volume that its pod writes to: a label by which containers may write, in the place of
    /// the one by which none may. What the operator has set stays.
    pub(super) fn for_writing(&self) -> Option<String> {
        let context = self.context.as_deref();
        context.map(|label| if label == READ_ONLY { WRITABLE } else { label }.to_owned())
    }

    /// The label for the store's objects; `None` if it would let containers write to them.
    pub(super) fn of_objects(&self) -> Option<&str> {
        let context = self.context.as_deref()?;
        if context == WRITABLE { None } else { self.label.as_deref() }
    }
}

/// Whether SELinux is on and has a policy. Works in containers, where /sys/fs/selinux is usually not mounted.
pub(super) fn is_on() -> bool {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    has_policy(&read("/proc/filesystems"), &read("/proc/thread-self/attr/current"))
}

/// The kernel registers selinuxfs unless SELinux was disabled at boot. Before a policy is loaded, every process has the
/// label `kernel`.
fn has_policy(filesystems: &[u8], own_label: &[u8]) -> bool {
    let selinux = filesystems.split(|byte| *byte == b'\n').any(|line| line.ends_with(b"\tselinuxfs"));
    selinux && own_label.contains(&b':')
}

/// The label of a mount's root.
pub(super) fn label_of(mount: &OwnedFd) -> Result<Option<String>, Errno> {
    // By path: the descriptor may be O_PATH, which fgetxattr(2) refuses.
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
    fn who_may_write_gets_a_label_by_which_containers_write() {
        let with = |context: Option<&str>| Labelling { context: context.map(ToOwned::to_owned), label: None };
        assert_eq!(with(None).for_writing(), None);
        for (label, expected) in [(READ_ONLY, WRITABLE), (WRITABLE, WRITABLE), ("u:r:t:s0", "u:r:t:s0")] {
            assert_eq!(with(Some(label)).for_writing().as_deref(), Some(expected));
        }
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
