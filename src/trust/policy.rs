//! Policies: what must be expected of which image, in the format of containers-policy.json(5).
//!
//! Parsing is strict and pure ([`Policy::parse`]): whatever is unknown, given twice or malformed makes the whole
//! policy unusable, and an unusable policy admits nothing. Judging is pure as well ([`decide`]): a list of
//! requirements, an image, what was found about it, and an explained outcome for every requirement.
//! [`Policies`] is where files are: which one governs, and whether it has changed.
//!
//! Two types of requirements are this project's own, and other tools refuse files with them: `sigstoreBundle`
//! (signatures in the bundle format, by keys or by identities under a trusted root) and `composefs` (what must
//! hold of the mount).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::integrity::Integrity;
use crate::oci::reference::Reference;
use crate::trust::signature::Expectation;

mod compile;
pub mod decide;
mod error;
mod files;
mod identity;
mod json;
mod parse;
mod policies;
mod scope;
mod shape;

pub use compile::Read;
pub use error::{Fault, PolicyError, Problem};
pub use identity::SignedIdentity;
pub use policies::{Governing, Policies};
pub use scope::Transport;

/// A parsed policy with all keys that it names.
#[derive(Debug)]
pub struct Policy {
    file: PathBuf,
    default: Vec<Requirement>,
    /// By transport and scope; a transport's own default has the empty scope.
    scopes: BTreeMap<(Transport, String), Vec<Requirement>>,
}

/// The part of a policy that governs an image.
#[derive(Debug, Clone)]
pub struct Rule<'a> {
    /// Where it stands in the policy: `default`, or `transports.docker["r.example/a"]`.
    pub scope: String,
    /// All of them must hold. Never empty.
    pub requirements: &'a [Requirement],
}

/// One requirement.
#[derive(Debug)]
pub struct Requirement {
    /// Where it stands in the policy.
    pub at: String,
    /// What it asks for.
    pub check: Check,
}

/// What a requirement asks for.
#[derive(Debug)]
pub enum Check {
    /// Nothing will do.
    Reject,
    /// Nothing.
    AcceptAnything,
    /// A signature.
    Signature(Box<SignatureCheck>),
    /// Something of the mount.
    Composefs {
        /// The signed manifest must carry the composefs digest.
        require_digest: bool,
        /// The least integrity level of the mount.
        integrity: Option<Integrity>,
    },
    /// Something that other tools can check and this one cannot, so that it never holds.
    Unsupported {
        /// The requirement's type.
        kind: &'static str,
        /// Why, and what to use instead.
        why: &'static str,
    },
}

/// A signature that is asked for.
#[derive(Debug)]
pub struct SignatureCheck {
    /// The requirement's type.
    pub kind: &'static str,
    /// What must hold of the signature.
    pub expectation: Expectation,
    /// What repository it must name; `None` if it need not name any.
    pub identity: Option<SignedIdentity>,
    /// Who may sign, for people.
    pub signers: Vec<String>,
}

impl Check {
    /// The requirement's type as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::AcceptAnything => "insecureAcceptAnything",
            Self::Signature(check) => check.kind,
            Self::Composefs { .. } => "composefs",
            Self::Unsupported { kind, .. } => kind,
        }
    }
}

impl Policy {
    /// The file it is from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The requirements that govern `reference`: those of the most specific scope, and of no other.
    ///
    /// `directory` is an OCI layout's directory with all links resolved.
    pub fn rule(&self, reference: &Reference, directory: Option<&Path>) -> Rule<'_> {
        let (transport, mut names) = scope::names(reference, directory);
        names.push(String::new());
        for name in names {
            let key = (transport, name);
            if let Some(requirements) = self.scopes.get(&key) {
                return Rule { scope: format!("transports.{}[{:?}]", transport.name(), key.1), requirements };
            }
        }
        Rule { scope: "default".to_owned(), requirements: &self.default }
    }
}

impl Rule<'_> {
    /// Whether a signature can make a difference.
    pub fn wants_signatures(&self) -> bool {
        let hopeless = |r: &Requirement| matches!(r.check, Check::Reject | Check::Unsupported { .. });
        let signature = |r: &Requirement| matches!(r.check, Check::Signature(_));
        self.requirements.iter().any(signature) && !self.requirements.iter().any(hopeless)
    }
}

#[cfg(test)]
mod tests;
