//! Judging claims one after another: which of the signature requirements are satisfied so far.

use std::path::PathBuf;
use std::sync::Arc;

use super::decide::satisfies;
use super::requirement::{Check, Requirement, SignatureCheck};
use super::rule::Policy;
use crate::trust::admission::Hearing;
use crate::trust::signature::{Claim, verify};
use crate::trust::subject::Subject;

/// The signature requirements of one rule, and the claims so far.
#[derive(Debug)]
pub(in crate::trust) struct PolicyHearing {
    policy: Arc<Policy>,
    subject: Subject,
    directory: Option<PathBuf>,
    /// For each signature requirement in the order of the policy, those in alternatives too: whether it is satisfied.
    satisfied: Vec<bool>,
}

impl PolicyHearing {
    /// No claim has been heard; `None` if no signature can change the decision.
    ///
    /// `directory` is an OCI layout's directory with all links resolved.
    pub(in crate::trust) fn new(
        policy: Arc<Policy>,
        subject: &Subject,
        directory: Option<PathBuf>,
    ) -> Option<Self> {
        let rule = policy.rule(&subject.reference, directory.as_deref());
        let satisfied = rule.wants_signatures().then(|| vec![false; checks(rule.requirements).len()])?;
        Some(Self { subject: subject.clone(), directory, satisfied, policy })
    }

    #[cfg(test)]
    pub(super) fn set_satisfied(&mut self, satisfied: Vec<bool>) {
        self.satisfied = satisfied;
    }
}

impl Hearing for PolicyHearing {
    fn hear(&mut self, claim: &Claim) -> bool {
        let rule = self.policy.rule(&self.subject.reference, self.directory.as_deref());
        let mut helps = false;
        for (check, satisfied) in checks(rule.requirements).into_iter().zip(&mut self.satisfied) {
            if !*satisfied && satisfies(check, &self.subject, claim, &verify).is_ok() {
                (*satisfied, helps) = (true, true);
            }
        }
        helps
    }

    fn is_decided(&self) -> bool {
        let rule = self.policy.rule(&self.subject.reference, self.directory.as_deref());
        let mut satisfied = self.satisfied.iter().copied();
        let undecided = rule.requirements.iter().filter(|requirement| match &requirement.check {
            Check::Signature(_) => satisfied.next() != Some(true),
            // All are taken, so that the next requirement begins with its own.
            Check::AnyOf(alternatives) => {
                let own = satisfied.by_ref().take(checks(alternatives).len());
                own.filter(|satisfied| *satisfied).count() == 0
            }
            _ => false,
        });
        undecided.count() == 0
    }
}

fn checks(requirements: &[Requirement]) -> Vec<&SignatureCheck> {
    let mut found = Vec::new();
    for requirement in requirements {
        match &requirement.check {
            Check::Signature(check) => found.push(&**check),
            Check::AnyOf(alternatives) => found.extend(checks(alternatives)),
            _ => {}
        }
    }
    found
}
