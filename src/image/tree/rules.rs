//! The rules by which layers become a tree: faithful, or canonical as sealed images need them.

use super::arena::{Arena, NodeId, NodeKind};
use super::error::TreeError;
use crate::image::entry::Mtime;

/// How the tree is derived from the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// What the layers say: the root's own entry (0755, root:root, mtime 0 without one) and the
    /// extended attributes that mean something to a reader: `user.*`, file capabilities and ACLs. Not
    /// overlayfs's own, which would steer the overlay mount, nor labels of security modules, which are
    /// the node's to give. Device nodes and named pipes are left out, see [`NodeKind::is_special`].
    Faithful,
    /// The same with device nodes and named pipes.
    Verbatim,
    /// What composefs-rs makes of an OCI image, so that a digest sealed elsewhere matches: the
    /// root's metadata is `/usr`'s, `/run` is empty and has `/usr`'s mtime, and few extended
    /// attributes stay.
    Canonical {
        /// Which ones.
        xattrs: XattrRule,
    },
}

/// Which extended attributes the canonical rules keep. Sealers use either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XattrRule {
    /// `security.capability` only.
    AllowlistOnly,
    /// That, and `user.*`.
    KeepUser,
}

impl Rules {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Faithful,
        Self::Verbatim,
        Self::Canonical { xattrs: XattrRule::AllowlistOnly },
        Self::Canonical { xattrs: XattrRule::KeepUser },
    ];

    /// Their name in records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Faithful => "faithful",
            Self::Verbatim => "verbatim",
            Self::Canonical { xattrs: XattrRule::AllowlistOnly } => "canonical",
            Self::Canonical { xattrs: XattrRule::KeepUser } => "canonical-user-xattrs",
        }
    }

    /// Whether an extended attribute becomes part of the tree.
    pub fn keeps(&self, name: &[u8]) -> bool {
        match self {
            Self::Faithful | Self::Verbatim => match name {
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
        matches!(self, Self::Faithful | Self::Verbatim)
    }

    /// What is to be done after all layers.
    pub(super) fn finish(&self, arena: &mut Arena) -> Result<(), TreeError> {
        match self {
            Self::Faithful => arena.prune(NodeKind::is_special),
            Self::Verbatim => {}
            Self::Canonical { .. } => canonicalise(arena)?,
        }
        Ok(())
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

fn canonicalise(arena: &mut Arena) -> Result<(), TreeError> {
    let usr = directory(arena, b"usr").ok_or(TreeError::NoUsr)?;
    let stat = arena.node(usr).stat;
    arena.node_mut(NodeId::ROOT).stat = stat;
    if let Some(run) = directory(arena, b"run") {
        arena.node_mut(run).stat.mtime = stat.mtime;
        let children = arena.children_mut(run).map(std::mem::take).unwrap_or_default();
        for child in children.into_values() {
            arena.release(child.node);
        }
    }
    Ok(())
}

/// A directory right below the root.
fn directory(arena: &Arena, name: &[u8]) -> Option<NodeId> {
    let child = arena.children(NodeId::ROOT)?.get(name)?;
    arena.children(child.node).map(|_| child.node)
}

/// The format has no times before 1970, and the two writers of composefs images differ on what to
/// do with them.
pub(super) fn clamp(mtime: Mtime) -> Mtime {
    if mtime.secs < 0 { Mtime::default() } else { mtime }
}
