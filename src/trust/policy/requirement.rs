//! Requirements as they are checked: keys, roots and patterns are parsed.

use super::identity::SignedIdentity;
use crate::integrity::Integrity;
use crate::trust::signature::Expectation;

/// One requirement.
#[derive(Debug)]
pub struct Requirement {
    /// Where it stands in the policy.
    pub(super) at: String,
    /// What it asks for.
    pub(super) check: Check,
}

/// What a requirement asks for.
#[derive(Debug)]
pub(super) enum Check {
    /// Never holds.
    Reject,
    /// Always holds.
    AcceptAnything,
    /// A signature.
    Signature(Box<SignatureCheck>),
    /// Any of these, which are all of signatures.
    AnyOf(Vec<Requirement>),
    /// Always holds; signatures that are missing or wrong only warn in its list.
    WarnOnly,
    /// Properties of the mount.
    Composefs {
        /// The signed manifest must carry the composefs digest.
        require_digest: bool,
        /// The lowest accepted integrity level of the mount.
        integrity: Option<Integrity>,
        /// The image keeps its set-user-ID and set-group-ID bits and file capabilities. A permission: it always holds.
        keep_privileges: bool,
    },
    /// Something that other tools can check and this one cannot. Never holds.
    Unsupported {
        /// The requirement's type.
        kind: &'static str,
        /// Why it is not supported, and what to use instead.
        why: &'static str,
    },
}

/// A required signature.
#[derive(Debug)]
pub(super) struct SignatureCheck {
    /// The requirement's type.
    pub(super) kind: &'static str,
    /// What the signature must satisfy.
    pub(super) expectation: Expectation,
    /// The repository that it must name; `None` if it need not name any.
    pub(super) identity: Option<SignedIdentity>,
    /// Who may sign, for people.
    pub(super) signers: Vec<String>,
}

impl Check {
    /// The requirement's type as the policy spells it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::AcceptAnything => "insecureAcceptAnything",
            Self::Signature(check) => check.kind,
            Self::AnyOf(_) => "anyOf",
            Self::WarnOnly => "warnOnly",
            Self::Composefs { .. } => "composefs",
            Self::Unsupported { kind, .. } => kind,
        }
    }

    /// Whether it asks who made the image. Only that can be turned into a warning.
    pub(super) fn is_of_signatures(&self) -> bool {
        matches!(self, Self::Signature(_) | Self::AnyOf(_) | Self::Unsupported { .. })
    }

    /// Whether a signature can make it hold.
    pub(super) fn wants_signatures(&self) -> bool {
        match self {
            Self::Signature(_) => true,
            Self::AnyOf(alternatives) => alternatives.iter().any(|one| one.check.wants_signatures()),
            _ => false,
        }
    }

    /// Whether it never holds.
    pub(super) fn is_hopeless(&self) -> bool {
        match self {
            Self::Reject | Self::Unsupported { .. } => true,
            Self::AnyOf(alternatives) => alternatives.iter().all(|one| one.check.is_hopeless()),
            _ => false,
        }
    }

    /// Why it never holds, and what to do.
    pub(super) fn why_hopeless(&self) -> &'static str {
        match self {
            Self::Unsupported { why, .. } => why,
            Self::AnyOf(_) => "none of its alternatives is supported here",
            _ => "nothing is admitted here; add a scope for this image to the policy if it should be",
        }
    }
}
