//! What a sealed image holds and may not: its bytes cannot change, so it is given as it was written, or not at all.
//!
//! A seal alone is anybody's word. It counts once the policy has verified a signature over the manifest that carries it.

use super::limits::Kept;
use crate::image::store::ImageRecord;
use crate::image::tree::Powers;
use crate::kind::Kind;
use crate::trust::Admission;

/// Why a sealed image is not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Device nodes or named pipes.
    #[error(
        "it is sealed with device nodes or named pipes ({0:?} is the first) and cannot be mounted without them; sign it \
         and let the policy verify the signature, set --keep-special-files on the node, or seal it again with \
         `--rules unprivileged`"
    )]
    SpecialFiles(String),
    /// Programs that give rights.
    #[error(
        "it is sealed with set-user-ID or set-group-ID bits or file capabilities ({0:?} is the first) and cannot be \
         mounted without them; sign it and let the policy verify the signature, allow them (keepPrivileges in the \
         policy, --keep-privileges on the node), or seal it again with `--rules unprivileged`"
    )]
    Privileges(String),
    /// Programs, and the volume is to be `noexec`.
    #[error(
        "it is sealed with files that can be executed ({0:?} is the first), so `noexec` cannot be kept in every \
         container; leave `noexec` out, or seal the image again with `--rules noexec`"
    )]
    Programs(String),
}

impl Excess {
    /// The first thing in a sealed image that is not allowed. `kept` is what images keep on this node.
    pub(super) fn of(
        record: &ImageRecord,
        kept: Kept,
        admission: Option<&Admission>,
        noexec: bool,
    ) -> Option<Self> {
        // What nobody has looked for is taken for present.
        let powers = record.powers.clone().unwrap_or_else(Powers::unknown);
        Self::among(powers, kept, admission, noexec)
    }

    /// The first of these that is not allowed.
    pub(super) fn among(
        powers: Powers,
        kept: Kept,
        admission: Option<&Admission>,
        noexec: bool,
    ) -> Option<Self> {
        let signed = admission.is_some_and(|admission| admission.signed);
        let privileges = kept.privileges || admission.is_some_and(|admission| admission.keep_privileges);
        let special = powers.special_file.filter(|_| !(kept.special_files || signed));
        let privileged = powers.privileged_file.filter(|_| !(privileges || signed));
        let program = powers.program.filter(|_| noexec);
        special
            .map(Self::SpecialFiles)
            .or_else(|| privileged.map(Self::Privileges))
            .or_else(|| program.map(Self::Programs))
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::SpecialFiles(_) | Self::Privileges(_) => Kind::Denied,
            Self::Programs(_) => Kind::Unsupported,
        }
    }
}
