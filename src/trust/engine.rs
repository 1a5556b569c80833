//! The engine that the driver uses: the policy in force and the verifier programs.
//!
//! Both must admit the image. The policy's judgement is memoised by policy, image and claims. Which policy is in
//! force is looked up every time. In the mode that only warns, signatures that are missing or wrong and verifiers that
//! refuse are logged and counted; what a policy rejects outright, and what cannot be judged, is refused all the same.

use std::path::PathBuf;
use std::sync::Arc;

use super::admission::{Admission, Hearing, Pods, PolicyEngine, PolicyRefusal};
use super::examination::Examination;
use super::memo::{self, Memo};
use super::metrics::{Reason, SignatureResult, TrustMetrics};
use super::policy::decide::{self, Judgement, RequirementOutcome};
use super::policy::{Governing, Policies, Policy, PolicyHearing};
use super::settings::{PolicyMode, TrustSettings, WithoutPolicy};
use super::signature::{Claim, Expectation, verify};
use super::subject::{Claims, Subject};
use super::verifier::{ProgramVerdict, Question, Verifiers};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::text::one_line;

mod layout_directory;
mod outright;

use layout_directory::layout_directory;

/// The longest message of a refusal, in characters. It goes to the log and to a pod's events (at most 1 KiB each).
const MESSAGE_MAX: usize = 2000;

/// The engine that follows an operator's settings.
#[derive(Debug)]
pub struct SignaturePolicyEngine {
    policies: Policies,
    without: WithoutPolicy,
    mode: PolicyMode,
    verifiers: Option<Verifiers>,
    memo: Memo<Arc<Judgement>>,
    metrics: TrustMetrics,
}

/// The policy's judgement, and which policy it was.
struct PolicyDecision {
    policy: Option<PathBuf>,
    digest: Digest,
    scope: String,
    judgement: Result<Arc<Judgement>, String>,
}

impl SignaturePolicyEngine {
    /// An engine with `settings`. It reads policies and programs only when it needs them.
    pub fn new(settings: &TrustSettings, metrics: TrustMetrics) -> Self {
        let verifiers =
            settings.verifier_dir.clone().map(|dir| Verifiers::new(dir, settings.verifier_timeout));
        Self {
            policies: Policies::new(settings.policy.clone(), settings.policy_dir.clone()),
            without: settings.without_policy,
            mode: settings.mode,
            verifiers,
            memo: Memo::default(),
            metrics,
        }
    }

    /// Judges and explains. Runs the verifier programs even if the policy already refuses the image.
    pub(crate) fn examine(&self, subject: &Subject, claims: &Claims) -> Examination {
        self.judge(subject, claims, true)
    }

    fn judge(&self, subject: &Subject, claims: &Claims, thorough: bool) -> Examination {
        let PolicyDecision { policy, digest, scope, judgement } = self.policy_decision(subject, claims);
        let mut found = Examination {
            policy,
            digest,
            scope,
            outcomes: Vec::new(),
            verdicts: Vec::new(),
            verdicts_only_warn: false,
            obstacle: None,
            result: Ok(String::new()),
            warning: None,
            integrity: None,
            signed: false,
            keep_privileges: false,
            reason: Reason::Rejected,
        };
        match judgement {
            // The judgement is shared with the memo, hence the clone.
            Ok(judged) => {
                found.outcomes.clone_from(&judged.outcomes);
                (found.integrity, found.reason) = (judged.integrity, judged.reason());
                found.warning = judged.warning();
                (found.signed, found.keep_privileges) = (judged.is_signed(), judged.keep_privileges);
                found.result = if judged.admits() { Ok(judged.by()) } else { Err(judged.because()) };
            }
            Err(why) => found.block(why),
        }
        // Programs are slow, and cannot admit what the policy refuses.
        if thorough || found.result.is_ok() {
            match self.run_verifiers(subject) {
                Ok(verdicts) => found.add_verdicts(verdicts, self.only_warns()),
                Err(why) => found.block(why),
            }
        }
        found
    }

    fn policy_decision(&self, subject: &Subject, claims: &Claims) -> PolicyDecision {
        match self.policies.governing(subject.namespace.as_deref()) {
            Governing::Policy { policy, digest } => self.by_policy(&policy, digest, subject, claims),
            // The digest of nothing: what cannot be read or parsed has none of its own.
            Governing::Broken { file, why } => PolicyDecision {
                policy: file,
                digest: Digest::of(b""),
                scope: String::new(),
                judgement: Err(why),
            },
            Governing::Nothing => {
                // As an outcome, so that the log and `policy check` name the flag that admits everything.
                let judgement = match self.without {
                    WithoutPolicy::Accept => {
                        let at = "--without-policy".to_owned();
                        let outcomes = vec![RequirementOutcome {
                            at,
                            kind: "accept",
                            result: Ok(String::new()),
                            reason: Reason::NothingDemanded,
                            only_warns: false,
                        }];
                        Ok(Arc::new(Judgement { outcomes, integrity: None, keep_privileges: false }))
                    }
                    WithoutPolicy::Reject => Err(no_policy(&subject.reference)),
                };
                let digest = Digest::of(b"composefs-csi: without policy");
                PolicyDecision { policy: None, digest, scope: "--without-policy".to_owned(), judgement }
            }
        }
    }

    fn by_policy(
        &self,
        policy: &Policy,
        digest: Digest,
        subject: &Subject,
        claims: &Claims,
    ) -> PolicyDecision {
        let directory = layout_directory(&subject.reference);
        let rule = policy.rule(&subject.reference, directory.as_deref()).warning(self.only_warns());
        // The digest alone is not enough: one policy has several rules.
        let key = memo::key(&[digest.as_bytes(), rule.scope.as_bytes()], subject, claims);
        // Counted inside: a memoised judgement verifies no signature.
        let counted = |claim: &Claim, expectation: &Expectation, digests: &[Digest]| {
            let signed = verify(claim, expectation, digests);
            self.metrics.signature(match &signed {
                Ok(_) => SignatureResult::Verified,
                Err(_) => SignatureResult::Failed,
            });
            signed
        };
        let judge = || Arc::new(decide::decide(&rule, subject, claims, &counted));
        let judgement = self.memo.get_or(key, judge);
        PolicyDecision {
            policy: Some(policy.file().to_owned()),
            digest,
            scope: rule.scope,
            judgement: Ok(judgement),
        }
    }

    fn only_warns(&self) -> bool {
        self.mode == PolicyMode::Warn
    }

    fn run_verifiers(&self, subject: &Subject) -> Result<Vec<ProgramVerdict>, String> {
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

impl PolicyEngine for SignaturePolicyEngine {
    fn wants_signatures(&self, subject: &Subject) -> bool {
        match self.policies.governing(subject.namespace.as_deref()) {
            Governing::Policy { policy, .. } => policy
                .rule(&subject.reference, layout_directory(&subject.reference).as_deref())
                .wants_signatures(),
            // No signature changes the decision here.
            Governing::Nothing | Governing::Broken { .. } => false,
        }
    }

    fn hearing(&self, subject: &Subject) -> Option<Box<dyn Hearing>> {
        let Governing::Policy { policy, .. } = self.policies.governing(subject.namespace.as_deref()) else {
            return None;
        };
        let hearing = PolicyHearing::new(policy, subject, layout_directory(&subject.reference))?;
        Some(Box::new(hearing))
    }

    fn refuses_outright(&self, reference: &Reference, pods: Pods<'_>) -> Option<PolicyRefusal> {
        let refusal = self.outright(reference, pods)?;
        self.metrics.judged(Reason::Rejected);
        Some(PolicyRefusal(bounded(refusal)))
    }

    fn admit(&self, subject: &Subject, claims: &Claims) -> Result<Admission, PolicyRefusal> {
        let found = self.judge(subject, claims, false);
        self.metrics.judged(found.reason);
        let image = format!("image {} ({})", subject.reference, subject.target.digest);
        // The reason of a blocking problem already says which file it concerns.
        let policy = match &found.policy {
            Some(file) if found.obstacle.is_none() => {
                format!(" by policy {}, {}", file.display(), found.scope)
            }
            _ => String::new(),
        };
        match (found.result, found.warning) {
            (Ok(by), None) => {
                let Examination { digest: policy, integrity, signed, keep_privileges, .. } = found;
                Ok(Admission { policy, by, integrity, signed, keep_privileges })
            }
            (Ok(_), Some(why)) => {
                let message = bounded(format!("{image} would be refused{policy}: {why}"));
                tracing::warn!("{message}; it is admitted, because here the policy only warns");
                // Nobody vouches for it: what is kept for images that somebody does is not kept.
                Ok(Admission {
                    policy: found.digest,
                    by: "a policy that only warns".to_owned(),
                    integrity: found.integrity,
                    signed: false,
                    keep_privileges: false,
                })
            }
            (Err(why), _) => Err(PolicyRefusal(bounded(format!("{image} is not admitted{policy}: {why}")))),
        }
    }
}

/// The message for a new installation without a policy: the two ways to start.
fn no_policy(reference: &Reference) -> String {
    let (transport, scope) = match reference {
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

/// One line of at most [`MESSAGE_MAX`] characters.
fn bounded(message: String) -> String {
    let message = one_line(&message);
    // By characters, because a cut inside one would not be text.
    match message.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

#[cfg(test)]
mod tests;
