//! The rules by which layers become a tree: faithful ones, or the canonical ones of sealed images.

use super::arena::{Arena, NodeId, NodeKind};
use super::error::TreeError;
use crate::image::entry::Mtime;

/// How the tree is derived from the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// What the layers say: the root's own entry (0755, root:root, mtime 0 without one) and the
    /// extended attributes that mean something to a reader: `user.*`, file capabilities and ACLs.
    /// Overlayfs's own are left out, since they would control the overlay mount. Labels of security modules
    /// are left out, since the node assigns them. Device nodes and named pipes are left out, see
    /// [`NodeKind::is_special`].
    Faithful,
    /// As `Faithful`, with device nodes and named pipes.
    Verbatim,
    /// What volumes show of images that are not sealed: as `Faithful`, or as `Verbatim` with the special files, less
    /// what the reduction takes out.
    Reduced {
        /// What stays of programs.
        to: Reduction,
        /// Whether device nodes and named pipes stay.
        special_files: bool,
    },
    /// What composefs-rs makes of an OCI image, so that the digest of a sealed image matches. The root has
    /// the metadata of `/usr`, `/run` is empty and has `/usr`'s mtime, and few extended attributes stay.
    Canonical {
        /// Which of them stay.
        xattrs: XattrRule,
    },
}

/// What stays of an image's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// They give no rights: regular files lose their set-user-ID and set-group-ID bits and their capabilities.
    Unprivileged,
    /// Nothing: regular files also lose the permission to be executed, in their modes and POSIX ACLs.
    NotExecutable,
}

/// Which extended attributes the canonical rules keep. Tools that seal images use either rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XattrRule {
    /// `security.capability` only.
    AllowlistOnly,
    /// `security.capability` and `user.*`.
    KeepUser,
}

impl Rules {
    /// All rules.
    pub const ALL: [Self; 8] = [
        Self::Faithful,
        Self::Verbatim,
        Self::Reduced { to: Reduction::Unprivileged, special_files: false },
        Self::Reduced { to: Reduction::Unprivileged, special_files: true },
        Self::Reduced { to: Reduction::NotExecutable, special_files: false },
        Self::Reduced { to: Reduction::NotExecutable, special_files: true },
        Self::Canonical { xattrs: XattrRule::AllowlistOnly },
        Self::Canonical { xattrs: XattrRule::KeepUser },
    ];

    /// Their name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faithful => "faithful",
            Self::Verbatim => "verbatim",
            Self::Reduced { to: Reduction::Unprivileged, special_files: false } => "unprivileged",
            Self::Reduced { to: Reduction::Unprivileged, special_files: true } => "unprivileged-special",
            Self::Reduced { to: Reduction::NotExecutable, special_files: false } => "noexec",
            Self::Reduced { to: Reduction::NotExecutable, special_files: true } => "noexec-special",
            Self::Canonical { xattrs: XattrRule::AllowlistOnly } => "canonical",
            Self::Canonical { xattrs: XattrRule::KeepUser } => "canonical-user-xattrs",
        }
    }

    /// Whether an extended attribute becomes part of the tree.
    pub(super) fn keeps(&self, name: &[u8]) -> bool {
        match self {
            Self::Faithful | Self::Verbatim | Self::Reduced { .. } => match name {
                b"security.capability" => true,
                _ => ![&b"trusted."[..], b"security.", b"user.overlay."]
                    .iter()
                    .any(|prefix| name.starts_with(prefix)),
            },
            Self::Canonical { xattrs } => {
                name == b"security.capability" || *xattrs == XattrRule::KeepUser && name.starts_with(b"user.")
            }
        }
    }

    /// Whether a tar's entry for the root counts.
    pub(super) fn takes_root_entry(&self) -> bool {
        !matches!(self, Self::Canonical { .. })
    }

    /// Applies the rules for the whole tree, after the last layer.
    pub(super) fn finish(&self, arena: &mut Arena) -> Result<(), TreeError> {
        match self {
            Self::Faithful | Self::Reduced { special_files: false, .. } => arena.prune(NodeKind::is_special),
            Self::Verbatim | Self::Reduced { special_files: true, .. } => {}
            Self::Canonical { .. } => canonicalise(arena)?,
        }
        Ok(())
    }

    /// What is taken out of the programs of the tree.
    pub(crate) fn reduction(&self) -> Option<Reduction> {
        match self {
            Self::Reduced { to, .. } => Some(*to),
            Self::Faithful | Self::Verbatim | Self::Canonical { .. } => None,
        }
    }
}

impl std::fmt::Display for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Rules {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Rules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let found = Self::ALL.into_iter().find(|rules| rules.name() == name);
        found.ok_or_else(|| serde::de::Error::custom(format!("{name:?} names no rules")))
    }
}

/// Gives the root and `/run` the form that composefs-rs gives them.
fn canonicalise(arena: &mut Arena) -> Result<(), TreeError> {
    let usr = directory(arena, b"usr").ok_or(TreeError::NoUsr)?;
    let stat = arena.node(usr).stat;
    arena.node_mut(NodeId::ROOT).stat = stat;
    if let Some(run) = directory(arena, b"run") {
        arena.node_mut(run).stat.mtime = stat.mtime;
        // Hard links from elsewhere keep their inodes.
        let children = arena.children_mut(run).map(std::mem::take).unwrap_or_default();
        for child in children.into_values() {
            arena.release(child);
        }
    }
    Ok(())
}

/// A directory directly below the root.
fn directory(arena: &Arena, name: &[u8]) -> Option<NodeId> {
    let child = *arena.children(NodeId::ROOT)?.get(name)?;
    arena.children(child).map(|_| child)
}

/// Raises times before 1970 to 1970. The format has no such times, and the composefs project's two writers
/// treat them differently.
pub(super) fn clamp(mtime: Mtime) -> Mtime {
    if mtime.secs < 0 { Mtime::default() } else { mtime }
}
