//! The engine: the policy in force and the verifier programs together, as [`PolicyEngine`].
//!
//! Both must agree. What is memoised is only the policy's judgement of the very same policy, image and claims;
//! which policy is in force is looked up every time.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::memo::{self, Memo};
use super::metrics::{Reason, SignatureResult, TrustMetrics};
use super::policy::decide::{self, Judgement, Outcome};
use super::policy::{Governing, Policies, Policy};
use super::signature::{Claim, Expectation, verify};
use super::verifier::{Question, Verdict, Verifiers};
use super::{Admission, Claims, PolicyEngine, Refusal, Subject, TrustSettings, WithoutPolicy};
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;

/// Bytes of a refusal's message, which ends up in a pod's events (at most 1 KiB each there) and in the log.
const MESSAGE_MAX: usize = 2000;

/// The engine by an operator's settings.
#[derive(Debug)]
pub struct SignaturePolicyEngine {
    policies: Policies,
    without: WithoutPolicy,
    verifiers: Option<Verifiers>,
    memo: Memo<Arc<Judgement>>,
    metrics: TrustMetrics,
}

/// Everything that was considered.
#[derive(Debug, Clone)]
pub struct Examination {
    /// The policy file that governs, if there is one.
    pub policy: Option<PathBuf>,
    /// Digest of the policy.
    pub digest: Digest,
    /// The scope that governs.
    pub scope: String,
    /// What became of each requirement.
    pub outcomes: Vec<Outcome>,
    /// What each verifier program said; empty if none was asked.
    pub verdicts: Vec<Verdict>,
    /// What keeps everything out, whatever the requirements and the programs say.
    pub obstacle: Option<String>,
    /// By what the image is admitted, or why it is not.
    pub result: Result<String, String>,
    /// The least integrity level that the policy demands.
    pub integrity: Option<Integrity>,
    /// The result as a word for counting.
    pub reason: Reason,
}

/// What the policy says.
struct Opinion {
    policy: Option<PathBuf>,
    digest: Digest,
    scope: String,
    judgement: Result<Arc<Judgement>, String>,
}

impl SignaturePolicyEngine {
    /// A engine by `settings`. Reads nothing yet: policies and programs are looked at when they are needed.
    pub fn new(settings: &TrustSettings, metrics: TrustMetrics) -> Self {
        let verifiers =
            settings.verifier_dir.clone().map(|dir| Verifiers::new(dir, settings.verifier_timeout));
        Self {
            policies: Policies::new(settings.policy.clone(), settings.policy_dir.clone()),
            without: settings.without_policy,
            verifiers,
            memo: Memo::default(),
            metrics,
        }
    }

    /// Judges and explains. Asks the verifier programs even if the policy refuses already.
    pub fn examine(&self, subject: &Subject, claims: &Claims) -> Examination {
        self.judge(subject, claims, true)
    }

    fn judge(&self, subject: &Subject, claims: &Claims, thorough: bool) -> Examination {
        let Opinion { policy, digest, scope, judgement } = self.opinion(subject, claims);
        let mut found = Examination {
            policy,
            digest,
            scope,
            outcomes: Vec::new(),
            verdicts: Vec::new(),
            obstacle: None,
            result: Ok(String::new()),
            integrity: None,
            reason: Reason::Rejected,
        };
        match judgement {
            Ok(judged) => {
                found.outcomes.clone_from(&judged.outcomes);
                (found.integrity, found.reason) = (judged.integrity, judged.reason());
                found.result = if judged.admits() { Ok(judged.by()) } else { Err(judged.because()) };
            }
            Err(why) => found.hinder(why),
        }
        if thorough || found.result.is_ok() {
            match self.ask(subject) {
                Ok(verdicts) => found.hear(verdicts),
                Err(why) => found.hinder(why),
            }
        }
        found
    }

    fn opinion(&self, subject: &Subject, claims: &Claims) -> Opinion {
        match self.policies.governing(subject.namespace.as_deref()) {
            Governing::Policy { policy, digest } => self.by_policy(&policy, digest, subject, claims),
            Governing::Broken { file, why } => {
                Opinion { policy: file, digest: Digest::of(b""), scope: String::new(), judgement: Err(why) }
            }
            Governing::Nothing => {
                let judgement = match self.without {
                    WithoutPolicy::Accept => {
                        let at = "--without-policy".to_owned();
                        let outcomes = vec![Outcome {
                            at,
                            kind: "accept",
                            result: Ok(String::new()),
                            reason: Reason::NothingDemanded,
                        }];
                        Ok(Arc::new(Judgement { outcomes, integrity: None }))
                    }
                    WithoutPolicy::Reject => Err(how_to_begin(subject)),
                };
                let digest = Digest::of(b"composefs-csi: without policy");
                Opinion { policy: None, digest, scope: "--without-policy".to_owned(), judgement }
            }
        }
    }

    fn by_policy(&self, policy: &Policy, digest: Digest, subject: &Subject, claims: &Claims) -> Opinion {
        let directory = layout_directory(&subject.reference);
        let rule = policy.rule(&subject.reference, directory.as_deref());
        let key = memo::key(&[digest.as_bytes(), rule.scope.as_bytes()], subject, claims);
        let counted = |claim: &Claim, expectation: &Expectation, digests: &[Digest]| {
            let signed = verify(claim, expectation, digests);
            self.metrics.signature(match &signed {
                Ok(_) => SignatureResult::Verified,
                Err(_) => SignatureResult::Failed,
            });
            signed
        };
        let judge = || Arc::new(decide::decide(&rule, subject, &claims.claims, &counted));
        let judgement = self.memo.get_or(key, judge);
        Opinion {
            policy: Some(policy.file().to_owned()),
            digest,
            scope: rule.scope,
            judgement: Ok(judgement),
        }
    }

    fn ask(&self, subject: &Subject) -> Result<Vec<Verdict>, String> {
        let Some(verifiers) = &self.verifiers else { return Ok(Vec::new()) };
        let target = &subject.target;
        let descriptor =
            serde_json::json!({"mediaType": target.media_type, "digest": target.digest, "size": target.size});
        let question = Question {
            name: subject.reference.to_string(),
            digest: target.digest.to_string(),
            descriptor: descriptor.to_string(),
        };
        verifiers.ask(&question).map_err(|error| error.to_string())
    }
}

impl Examination {
    /// Something stands in the way of every image.
    fn hinder(&mut self, why: String) {
        self.obstacle = Some(joined(self.obstacle.take(), &why));
        self.refuse(&why, Reason::Rejected);
    }

    /// Every program must allow the image.
    fn hear(&mut self, verdicts: Vec<Verdict>) {
        for verdict in &verdicts {
            match (&verdict.result, &mut self.result) {
                (Err(why), _) => {
                    self.refuse(&format!("verifier {} {why}", verdict.program), Reason::Untrusted);
                }
                (Ok(_), Ok(by)) => {
                    by.push_str(&format!(", verifier {}", verdict.program));
                    self.reason = Reason::Signed;
                }
                (Ok(_), Err(_)) => {}
            }
        }
        self.verdicts = verdicts;
    }

    fn refuse(&mut self, why: &str, reason: Reason) {
        match &mut self.result {
            Ok(_) => (self.result, self.reason) = (Err(why.to_owned()), reason),
            Err(before) => *before = joined(Some(std::mem::take(before)), why),
        }
    }
}

fn joined(first: Option<String>, second: &str) -> String {
    first.map_or_else(|| second.to_owned(), |first| format!("{first}; {second}"))
}

impl PolicyEngine for SignaturePolicyEngine {
    fn wants_signatures(&self, subject: &Subject) -> bool {
        match self.policies.governing(subject.namespace.as_deref()) {
            Governing::Policy { policy, .. } => policy
                .rule(&subject.reference, layout_directory(&subject.reference).as_deref())
                .wants_signatures(),
            Governing::Nothing | Governing::Broken { .. } => false,
        }
    }

    fn admit(&self, subject: &Subject, claims: &Claims) -> Result<Admission, Refusal> {
        let found = self.judge(subject, claims, false);
        self.metrics.judged(found.reason);
        match found.result {
            Ok(by) => Ok(Admission { policy: found.digest, by, integrity: found.integrity }),
            Err(why) => {
                let policy = match &found.policy {
                    Some(file) if found.obstacle.is_none() => {
                        format!(" by policy {}, {}", file.display(), found.scope)
                    }
                    _ => String::new(),
                };
                let message = format!(
                    "image {} ({}) is not admitted{policy}: {why}",
                    subject.reference, subject.target.digest
                );
                Err(Refusal(bounded(message)))
            }
        }
    }
}

/// The two ways to begin, for somebody who has just installed the driver.
fn how_to_begin(subject: &Subject) -> String {
    let (transport, scope) = match &subject.reference {
        Reference::Registry(registry) => ("docker", registry.name()),
        Reference::Layout(layout) => ("oci", layout.directory().display().to_string()),
    };
    let example = serde_json::json!({
        "default": [{"type": "reject"}],
        "transports": {transport: {scope: [{"type": "insecureAcceptAnything"}]}},
    });
    format!(
        "there is no signature policy, and without one nothing is mounted. Start the driver with --policy FILE \
         (containers-policy.json(5); this one admits this repository without signatures: {example}), or with \
         --without-policy accept, which admits everything"
    )
}

/// An OCI layout's directory with its links resolved: scopes are paths, and a link must not lead from one into
/// another. What is not there any more has no links.
fn layout_directory(reference: &Reference) -> Option<PathBuf> {
    let Reference::Layout(layout) = reference else { return None };
    let path = layout.directory();
    if let Ok(resolved) = path.canonicalize() {
        return Some(resolved);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    path.ancestors().skip(1).find_map(|ancestor| {
        let ancestor_or_here = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(ancestor_or_here.canonicalize().ok()?.join(rest))
    })
}

fn bounded(message: String) -> String {
    let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    match message.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

#[cfg(test)]
mod tests;
