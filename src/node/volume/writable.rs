//! Which writable volumes this node allows. Pure.
//!
//! What a pod writes lies in memory or on disk, and is its own; the image below stays what it is. Whether pods may at all is the
//! operator's to say, who has had read-only volumes only until then ([0046](../../../docs/adr/0046-writable-volumes.md)).

use super::levels::Levels;
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::volume::upper::Upper;

/// The most that a pod may write to one volume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritableLimit {
    /// Bytes in memory; 0: no volume is writable there.
    pub bytes: u64,
    /// Bytes on disk; 0: no volume is writable there.
    pub disk_bytes: u64,
    /// Capabilities that this process would need for it and lacks.
    pub lacking: Vec<&'static str>,
}

/// Why a volume cannot be written to on this node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WritableRefusal {
    /// The operator allows none.
    #[error(
        "this node has no writable volumes {where_}; its operator can allow them ({setting}), or the pod can write to an emptyDir",
        where_ = place(*on_disk), setting = setting(*on_disk)
    )]
    Forbidden {
        /// Whether on disk, or in memory.
        on_disk: bool,
    },
    /// The operator allows less.
    #[error(
        "volume attribute `upperSizeLimit` asks for {wanted} bytes, and this node allows {most} {where_} at the most; ask for \
         less, or for a higher {setting}", where_ = place(*on_disk), setting = setting(*on_disk)
    )]
    TooLarge {
        /// What is asked for.
        wanted: u64,
        /// What is allowed.
        most: u64,
        /// Whether on disk, or in memory.
        on_disk: bool,
    },
    /// The plugin itself could not write.
    #[error(
        "this node's plugin cannot have writable volumes, because it lacks the capabilities {0}, with which the kernel would write \
         what pods change; give them to its container, as the chart does where it allows writable volumes"
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

fn place(on_disk: bool) -> &'static str {
    if on_disk { "on disk" } else { "in memory" }
}

fn setting(on_disk: bool) -> &'static str {
    match on_disk {
        false => "node.writableMaxMiB of the chart, --writable-max-size",
        true => "node.writableMaxDiskMiB of the chart, --writable-max-disk-size",
    }
}

impl WritableRefusal {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooLarge { .. } => Kind::Invalid,
            Self::Forbidden { .. } | Self::Powerless(_) | Self::Level { .. } | Self::Users => {
                Kind::Unsupported
            }
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
        let on_disk = upper.on_disk;
        let most = if on_disk { self.disk_bytes } else { self.bytes };
        if most == 0 {
            return Err(WritableRefusal::Forbidden { on_disk });
        }
        if !self.lacking.is_empty() {
            return Err(WritableRefusal::Powerless(self.lacking.join(", ")));
        }
        if upper.bytes > most {
            return Err(WritableRefusal::TooLarge { wanted: upper.bytes, most, on_disk });
        }
        levels.read_demanded_by(attribute, policy).map_or(Ok(()), |by| Err(WritableRefusal::Level { by }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_and_the_policy_decide() {
        let levels = |least| Levels { here: Integrity::Read, least, no_read: None };
        let allow = |most, bytes, least, policy| {
            let allow = |on_disk| {
                let [bytes_here, disk_bytes] = if on_disk { [0, most] } else { [most, 0] };
                let limit = WritableLimit { bytes: bytes_here, disk_bytes, lacking: Vec::new() };
                let other = limit.allow(Upper { bytes: 1, on_disk: !on_disk }, &levels(least), None, policy);
                assert_eq!(
                    other,
                    Err(WritableRefusal::Forbidden { on_disk: !on_disk }),
                    "only where it is allowed"
                );
                limit.allow(Upper { bytes, on_disk }, &levels(least), None, policy)
            };
            let (in_memory, on_disk) = (allow(false), allow(true));
            assert_eq!(in_memory.is_ok(), on_disk.is_ok());
            in_memory
        };
        let forbidden = WritableRefusal::Forbidden { on_disk: false };
        assert_eq!(allow(0, 1, Integrity::Fetch, None), Err(forbidden));
        let powerless = WritableLimit { bytes: 8, disk_bytes: 0, lacking: vec!["CHOWN", "FOWNER"] };
        let refused =
            powerless.allow(Upper { bytes: 8, on_disk: false }, &levels(Integrity::Fetch), None, None);
        assert_eq!(refused, Err(WritableRefusal::Powerless("CHOWN, FOWNER".to_owned())));
        assert_eq!(allow(8, 8, Integrity::Mount, Some(Integrity::Mount)), Ok(()));
        assert_eq!(
            allow(8, 9, Integrity::Fetch, None),
            Err(WritableRefusal::TooLarge { wanted: 9, most: 8, on_disk: false })
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
