//! Which writable volumes this node allows. Pure.
//!
//! What a pod writes lies in memory, and is its own; the image below stays what it is. Whether pods may at all is the
//! operator's to say, who has had read-only volumes only until then ([0046](../../../docs/adr/0046-writable-volumes.md)).

use super::levels::Levels;
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::volume::upper::Upper;

/// The most that a pod may write to one volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritableLimit {
    /// Bytes; 0: no volume is writable.
    pub bytes: u64,
    /// Capabilities that this process would need for it and lacks.
    pub lacking: Vec<&'static str>,
}

/// Why a volume cannot be written to on this node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WritableRefusal {
    /// The operator allows none.
    #[error(
        "this node has no writable volumes; its operator can allow them (node.writableMaxMiB of the chart, \
         --writable-max-size), or the pod can write to an emptyDir"
    )]
    Forbidden,
    /// The operator allows less.
    #[error(
        "volume attribute `upperSizeLimit` asks for {wanted} bytes, and this node allows {most} at the most; ask for less, or \
         for a higher node.writableMaxMiB of the chart (--writable-max-size)"
    )]
    TooLarge {
        /// What is asked for.
        wanted: u64,
        /// What is allowed.
        most: u64,
    },
    /// The plugin itself could not write.
    #[error(
        "this node's plugin cannot have writable volumes, because it lacks the capabilities {0}, with which the kernel would write \
         what pods change; give them to its container, as the chart does where node.writableMaxMiB is set"
    )]
    Powerless(String),
    /// Every read is to be checked.
    #[error(
        "a writable volume cannot have integrity level read, which is demanded (by {by}): what the pod has changed is checked by \
         nobody. Remove `writable`, or demand less"
    )]
    Level {
        /// Who demands it.
        by: &'static str,
    },
    /// The pod has users of its own.
    #[error(
        "a pod with a user namespace (hostUsers: false) cannot have a writable volume: the kernel's overlayfs does not map its \
         owners. Remove `writable` and write to an emptyDir, or let the pod have the node's users"
    )]
    Users,
}

impl WritableRefusal {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooLarge { .. } => Kind::Invalid,
            Self::Forbidden | Self::Powerless(_) | Self::Level { .. } | Self::Users => Kind::Unsupported,
        }
    }
}

impl WritableLimit {
    /// Whether a volume may have this upper, where these levels are demanded by its attributes and the policy.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn allow(
        &self,
        upper: Upper,
        levels: &Levels,
        attribute: Option<Integrity>,
        policy: Option<Integrity>,
    ) -> Result<(), WritableRefusal> {
        if self.bytes == 0 {
            return Err(WritableRefusal::Forbidden);
        }
        if !self.lacking.is_empty() {
            return Err(WritableRefusal::Powerless(self.lacking.join(", ")));
        }
        if upper.bytes > self.bytes {
            return Err(WritableRefusal::TooLarge { wanted: upper.bytes, most: self.bytes });
        }
        levels.read_demanded_by(attribute, policy).map_or(Ok(()), |by| Err(WritableRefusal::Level { by }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_and_the_policy_decide() {
        let upper = |bytes| Upper { bytes };
        let levels = |least| Levels { here: Integrity::Read, least, no_read: None };
        let allow = |most, bytes, least, policy| {
            let limit = WritableLimit { bytes: most, lacking: Vec::new() };
            limit.allow(upper(bytes), &levels(least), None, policy)
        };
        assert_eq!(allow(0, 1, Integrity::Fetch, None), Err(WritableRefusal::Forbidden));
        let powerless = WritableLimit { bytes: 8, lacking: vec!["CHOWN", "FOWNER"] };
        let refused = powerless.allow(upper(8), &levels(Integrity::Fetch), None, None);
        assert_eq!(refused, Err(WritableRefusal::Powerless("CHOWN, FOWNER".to_owned())));
        assert_eq!(allow(8, 8, Integrity::Mount, Some(Integrity::Mount)), Ok(()));
        assert_eq!(
            allow(8, 9, Integrity::Fetch, None),
            Err(WritableRefusal::TooLarge { wanted: 9, most: 8 })
        );
        for (least, policy, by) in
            [(Integrity::Read, None, "--integrity"), (Integrity::Fetch, Some(Integrity::Read), "policy")]
        {
            let error = allow(8, 8, least, policy).unwrap_err();
            assert!(error.to_string().contains(by), "{error}");
            assert_eq!(error.kind(), Kind::Unsupported);
        }
    }
}
