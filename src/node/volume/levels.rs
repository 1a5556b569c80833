//! Integrity levels: what this node reaches, and what is demanded of it. Pure.
//!
//! Demands come from the node's setting (`--integrity`), the volume attribute `verify` and the policy that admitted
//! the image. The highest demand counts. A node that cannot reach it refuses and says why: a mount never has a lower
//! level than the demanded one.

use crate::integrity::Integrity;
use crate::kind::Kind;

/// The levels that this node reaches and demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// The level that every mount reaches here without an extra check.
    pub here: Integrity,
    /// The lowest level that a mount may have.
    pub least: Integrity,
    /// Why the kernel does not check every read here, if it does not.
    pub no_read: Option<String>,
}

/// A demanded level that this node cannot reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "integrity level read is demanded (by {by}), and this node reaches mount at the most: {why}. Let the pod run on \
     a node with fs-verity, or demand less"
)]
pub struct UnreachableLevel {
    by: &'static str,
    why: String,
}

impl UnreachableLevel {
    /// Unsupported: another node may reach the level.
    pub fn kind(&self) -> Kind {
        Kind::Unsupported
    }
}

impl Levels {
    /// The least level that a mount must reach, by the node's setting, a volume's attribute and a policy.
    ///
    /// # Errors
    /// This node cannot reach it.
    pub(crate) fn demand(
        &self,
        attribute: Option<Integrity>,
        policy: Option<Integrity>,
    ) -> Result<Integrity, UnreachableLevel> {
        let demands = self.demands(attribute, policy);
        let least = demands.iter().filter_map(|(level, _)| *level).max().unwrap_or_default();
        if least < Integrity::Read || self.here == Integrity::Read {
            return Ok(least);
        }
        let by = demands.iter().find(|(level, _)| *level == Some(least)).map_or("nobody", |(_, by)| by);
        let why = self.no_read.clone().unwrap_or_else(|| "the reason is in the plugin's log".to_owned());
        Err(UnreachableLevel { by, why })
    }

    /// Who demands that the kernel checks every read, if anybody does.
    pub(super) fn read_demanded_by(
        &self,
        attribute: Option<Integrity>,
        policy: Option<Integrity>,
    ) -> Option<&'static str> {
        let demands = self.demands(attribute, policy);
        demands.iter().find(|(level, _)| *level == Some(Integrity::Read)).map(|(_, by)| *by)
    }

    /// Who demands which level, ordered by what an error should name first when demands are equal.
    fn demands(
        &self,
        attribute: Option<Integrity>,
        policy: Option<Integrity>,
    ) -> [(Option<Integrity>, &'static str); 3] {
        [
            (policy, "the policy that admits the image"),
            (attribute, "the volume attribute `verify`"),
            (Some(self.least), "the node's setting --integrity"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Integrity::{Fetch, Mount, Read};

    fn levels(here: Integrity, least: Integrity) -> Levels {
        Levels { here, least, no_read: (here != Read).then(|| "xfs has no fs-verity".to_owned()) }
    }

    #[test]
    fn the_highest_demand_counts() {
        for (node, attribute, policy, least) in [
            (Fetch, None, None, Fetch),
            (Fetch, Some(Mount), None, Mount),
            (Fetch, None, Some(Mount), Mount),
            (Mount, Some(Fetch), None, Mount),
            (Fetch, Some(Mount), Some(Fetch), Mount),
        ] {
            assert_eq!(levels(Fetch, node).demand(attribute, policy), Ok(least));
            assert_eq!(levels(Read, node).demand(attribute, policy), Ok(least));
        }
        assert_eq!(levels(Read, Fetch).demand(Some(Read), None), Ok(Read));
    }

    #[test]
    fn what_cannot_be_reached_is_refused_with_who_asked_and_why() {
        for (node, attribute, policy, by) in [
            (Read, None, None, "--integrity"),
            (Fetch, Some(Read), None, "`verify`"),
            (Fetch, Some(Mount), Some(Read), "policy"),
        ] {
            let error = levels(Fetch, node).demand(attribute, policy).unwrap_err();
            assert!(error.to_string().contains(by) && error.to_string().contains("xfs has no"), "{error}");
            assert_eq!(error.kind(), Kind::Unsupported);
        }
    }
}
