//! What a tree gives to the pods that see it, beyond bytes to read.

use serde::{Deserialize, Serialize};

use super::arena::{Arena, Node};
use super::error::shown;
use super::reduce;
use super::xattrs::XattrTable;

/// The longest path that is kept of each, in characters.
const PATH_MAX: usize = 200;

/// What a tree holds that a volume shows only if it is allowed. Each is the first path of its sort, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Powers {
    /// A device node or named pipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special_file: Option<String>,
    /// A file with the set-user-ID or set-group-ID bit, or with capabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileged_file: Option<String>,
    /// A file that somebody may execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

impl Powers {
    /// Everything, of a tree that nobody has looked at.
    pub(crate) fn unknown() -> Self {
        let root = || Some("/".to_owned());
        Self { special_file: root(), privileged_file: root(), program: root() }
    }

    pub(super) fn of(arena: &Arena, xattrs: &XattrTable) -> Self {
        let first = |is: &dyn Fn(&Node) -> bool| {
            // Most trees lack most of it, and then no path is made.
            let path = arena.live().any(is).then(|| arena.find(is)).flatten();
            path.map(|path| shown(&path).chars().take(PATH_MAX).collect())
        };
        Self {
            special_file: first(&|node| node.kind.is_special()),
            privileged_file: first(&|node| reduce::is_privileged(node, xattrs.get(node.stat.xattrs))),
            program: first(&|node| reduce::is_executable(node, xattrs.get(node.stat.xattrs))),
        }
    }
}
