//! A parsed policy, and the rule in it that governs an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::requirement::{Check, Requirement};
use super::scope::{self, Transport};
use crate::oci::reference::Reference;

/// A parsed policy with all keys that it names.
#[derive(Debug)]
pub struct Policy {
    pub(super) file: PathBuf,
    pub(super) default: Vec<Requirement>,
    /// By transport and scope; a transport's own default has the empty scope.
    pub(super) scopes: BTreeMap<(Transport, String), Vec<Requirement>>,
}

/// The part of a policy that governs an image.
#[derive(Debug, Clone)]
pub struct PolicyRule<'a> {
    /// Where it stands in the policy: `default`, or `transports.docker["r.example/a"]`.
    pub scope: String,
    /// All of them must hold. Never empty.
    pub requirements: &'a [Requirement],
    /// Whether signatures that are missing or wrong only warn.
    pub only_warns: bool,
}

impl Policy {
    /// The file that it was read from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The requirements that govern `reference`: those of the most specific scope alone.
    ///
    /// `directory` is an OCI layout's directory with all links resolved.
    pub fn rule(&self, reference: &Reference, directory: Option<&Path>) -> PolicyRule<'_> {
        let (transport, mut names) = scope::names(reference, directory);
        // The transport's own default comes last.
        names.push(String::new());
        for name in names {
            let key = (transport, name);
            if let Some(requirements) = self.scopes.get(&key) {
                let scope = format!("transports.{}[{:?}]", transport.name(), key.1);
                return PolicyRule::of(scope, requirements);
            }
        }
        PolicyRule::of("default".to_owned(), &self.default)
    }
}

impl<'a> PolicyRule<'a> {
    fn of(scope: String, requirements: &'a [Requirement]) -> Self {
        let only_warns = requirements.iter().any(|r| matches!(r.check, Check::WarnOnly));
        Self { scope, requirements, only_warns }
    }

    /// The same, where `everywhere` says that all rules only warn.
    #[must_use]
    pub(crate) fn warning(mut self, everywhere: bool) -> Self {
        self.only_warns |= everywhere;
        self
    }

    /// Whether a signature can change the decision.
    pub(crate) fn wants_signatures(&self) -> bool {
        self.requirements.iter().any(|r| r.check.wants_signatures())
            && !self.requirements.iter().any(|r| r.check.is_hopeless())
    }

    /// Why it refuses every image, whatever its signatures are; `None` if it does not.
    pub(crate) fn refuses_all(&self) -> Option<String> {
        let refuses = |check: &Check| check.is_hopeless() && !(self.only_warns && check.is_of_signatures());
        let refusing = self.requirements.iter().find(|requirement| refuses(&requirement.check))?;
        Some(format!("{} ({}): {}", refusing.check.kind(), refusing.at, refusing.check.why_hopeless()))
    }
}
