//! The full account of one decision: every requirement, every verifier program, and the result.

use std::path::PathBuf;

use super::metrics::Reason;
use super::policy::decide::RequirementOutcome;
use super::verifier::ProgramVerdict;
use crate::integrity::Integrity;
use crate::oci::digest::Digest;

/// Everything that was considered for one decision.
#[derive(Debug, Clone)]
pub(crate) struct Examination {
    /// The governing policy file, if there is one.
    pub policy: Option<PathBuf>,
    /// Digest of the policy.
    pub digest: Digest,
    /// The governing scope.
    pub scope: String,
    /// The outcome of each requirement.
    pub outcomes: Vec<RequirementOutcome>,
    /// The verdict of each verifier program; empty if none was run.
    pub verdicts: Vec<ProgramVerdict>,
    /// Whether a program that refuses only warns.
    pub verdicts_only_warn: bool,
    /// A problem that refuses every image, independent of requirements and programs.
    pub obstacle: Option<String>,
    /// What admitted the image, or why it is refused.
    pub result: Result<String, String>,
    /// Why the image would be refused if nothing only warned; `None` if it would not.
    pub warning: Option<String>,
    /// The lowest integrity level that the policy accepts.
    pub integrity: Option<Integrity>,
    /// Whether a signature was verified.
    pub signed: bool,
    /// Whether the policy lets the image keep its set-user-ID and set-group-ID bits and file capabilities.
    pub keep_privileges: bool,
    /// The result as a metric label.
    pub reason: Reason,
}

impl Examination {
    /// Records a problem that refuses every image.
    pub(super) fn block(&mut self, why: String) {
        self.obstacle = Some(joined(self.obstacle.take(), &why));
        self.refuse(&why, Reason::Rejected);
    }

    /// Adds the verdicts of verifier programs: every program must allow the image, unless they only warn.
    pub(super) fn add_verdicts(&mut self, verdicts: Vec<ProgramVerdict>, only_warn: bool) {
        for verdict in &verdicts {
            match (&verdict.result, &mut self.result) {
                (Err(why), Ok(_)) if only_warn => {
                    let why = format!("verifier {} {why}", verdict.program);
                    self.warning = Some(joined(self.warning.take(), &why));
                    self.reason = Reason::Warned;
                }
                (Err(why), _) => {
                    self.refuse(&format!("verifier {} {why}", verdict.program), Reason::Untrusted);
                }
                (Ok(_), Ok(by)) => {
                    by.push_str(&format!(", verifier {}", verdict.program));
                    // A warning stays one.
                    if self.warning.is_none() {
                        self.reason = Reason::Signed;
                    }
                }
                // A program cannot overrule the policy or another program.
                (Ok(_), Err(_)) => {}
            }
        }
        (self.verdicts, self.verdicts_only_warn) = (verdicts, only_warn);
    }

    fn refuse(&mut self, why: &str, reason: Reason) {
        match &mut self.result {
            Ok(_) => (self.result, self.reason) = (Err(why.to_owned()), reason),
            Err(before) => *before = joined(Some(std::mem::take(before)), why),
        }
    }
}

/// Joins the reasons of one refusal.
fn joined(first: Option<String>, second: &str) -> String {
    first.map_or_else(|| second.to_owned(), |first| format!("{first}; {second}"))
}
