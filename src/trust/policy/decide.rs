//! The judgement: from requirements and claims, one explained outcome for each requirement. Pure.
//!
//! All requirements must hold. A signature requirement holds if at least one claim is a valid signature by an
//! expected signer, over one of the subject's digests and for the expected repository. Every other claim contributes
//! a reason.

use super::requirement::{Check, Requirement, SignatureCheck};
use super::rule::PolicyRule;
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::trust::metrics::Reason;
use crate::trust::signature::{Claim, Expectation, SignatureError, Signed};
use crate::trust::subject::Subject;

/// How many different reasons one outcome names. Anybody may push claims, so the message needs a bound.
const REASONS_MAX: usize = 4;
/// The longest reason, in characters.
const REASON_MAX: usize = 300;

/// Verifies one claim: [`crate::trust::signature::verify`], or a fake in tests.
pub type Verify<'a> = &'a dyn Fn(&Claim, &Expectation, &[Digest]) -> Result<Signed, SignatureError>;

/// The outcomes of all requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// One for each requirement, in their order.
    pub(crate) outcomes: Vec<RequirementOutcome>,
    /// The lowest integrity level that they accept for the mount.
    pub(crate) integrity: Option<Integrity>,
    /// Whether one of them lets the image keep its set-user-ID and set-group-ID bits and file capabilities.
    pub(crate) keep_privileges: bool,
}

/// The outcome of one requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequirementOutcome {
    /// Where the requirement stands in the policy.
    pub at: String,
    /// Its type.
    pub kind: &'static str,
    /// Why it holds, or why it does not and what to do.
    pub result: Result<String, String>,
    /// The same as a metric label.
    pub reason: Reason,
}

impl Judgement {
    /// Whether all requirements hold.
    pub fn admits(&self) -> bool {
        // An empty list admits nothing, although all of its requirements hold.
        !self.outcomes.is_empty() && self.outcomes.iter().all(|outcome| outcome.result.is_ok())
    }

    /// What admits the image: `sigstoreSigned by …`.
    pub(crate) fn by(&self) -> String {
        let by = self.outcomes.iter().filter_map(|o| o.result.as_ref().ok().map(|by| (o.kind, by)));
        by.map(|(kind, by)| format!("{kind} {by}").trim_end().to_owned()).collect::<Vec<_>>().join(", ")
    }

    /// The reason as a metric label: the first failure, or else a signature, if any requirement asked for one.
    pub(crate) fn reason(&self) -> Reason {
        let against = self.outcomes.iter().find(|outcome| outcome.result.is_err());
        let signed = self.outcomes.iter().find(|outcome| outcome.reason == Reason::Signed);
        against.or(signed).map_or(Reason::NothingDemanded, |outcome| outcome.reason)
    }

    /// Whether the image is admitted, and a signature was verified for that.
    pub(crate) fn is_signed(&self) -> bool {
        self.admits() && self.outcomes.iter().any(|outcome| outcome.reason == Reason::Signed)
    }

    /// Why the image is refused: every requirement that does not hold.
    pub fn because(&self) -> String {
        let failed = self.outcomes.iter().filter_map(|o| o.result.as_ref().err().map(|why| (o, why)));
        failed.map(|(o, why)| format!("{} ({}): {why}", o.kind, o.at)).collect::<Vec<_>>().join("; ")
    }
}

/// Judges `subject` by `rule`.
pub fn decide(rule: &PolicyRule<'_>, subject: &Subject, claims: &[Claim], verify: Verify<'_>) -> Judgement {
    let outcome = |requirement: &Requirement| {
        let result = check(&requirement.check, subject, claims, verify);
        let reason = reason(&requirement.check, result.is_ok(), claims.is_empty());
        RequirementOutcome { at: requirement.at.clone(), kind: requirement.check.kind(), result, reason }
    };
    let demanded = |requirement: &Requirement| match requirement.check {
        Check::Composefs { integrity, .. } => integrity,
        _ => None,
    };
    Judgement {
        outcomes: rule.requirements.iter().map(outcome).collect(),
        integrity: rule.requirements.iter().filter_map(demanded).max(),
        keep_privileges: rule.requirements.iter().any(keeps_privileges),
    }
}

fn keeps_privileges(requirement: &Requirement) -> bool {
    matches!(requirement.check, Check::Composefs { keep_privileges: true, .. })
}

fn check(check: &Check, subject: &Subject, claims: &[Claim], verify: Verify<'_>) -> Result<String, String> {
    match check {
        Check::Reject => {
            Err("nothing is admitted here; add a scope for this image to the policy if it should be".to_owned())
        }
        // No reason is needed: the requirement's type says it.
        Check::AcceptAnything => Ok(String::new()),
        Check::Unsupported { why, .. } => Err((*why).to_owned()),
        Check::Signature(check) => signature(check, subject, claims, verify),
        Check::Composefs { require_digest: true, .. } if !subject.sealed => Err(
            "the image's manifest carries no composefs digest; add one with `composefs-csi seal` and sign the result"
                .to_owned(),
        ),
        Check::Composefs { require_digest, integrity, keep_privileges } => {
            let digest = require_digest.then(|| "digest in the manifest".to_owned());
            let level = integrity.map(|level| format!("integrity {level}"));
            let kept = keep_privileges.then(|| "privileges kept".to_owned());
            Ok(digest.into_iter().chain(level).chain(kept).collect::<Vec<_>>().join(" and "))
        }
    }
}

fn reason(check: &Check, holds: bool, nothing_found: bool) -> Reason {
    match (check, holds) {
        (Check::Signature(_), true) => Reason::Signed,
        (_, true) => Reason::NothingDemanded,
        (Check::Signature(_), false) if nothing_found => Reason::Unsigned,
        (Check::Signature(_), false) => Reason::Untrusted,
        (Check::Composefs { .. }, false) => Reason::Unbound,
        (_, false) => Reason::Rejected,
    }
}

fn signature(
    check: &SignatureCheck,
    subject: &Subject,
    claims: &[Claim],
    verify: Verify<'_>,
) -> Result<String, String> {
    let mut reasons = Reasons::default();
    for claim in claims {
        match one(check, subject, claim, verify) {
            // One valid signature is enough; wrong ones beside it do no harm.
            Ok(signed) => return Ok(format!("by {} over {}", printable(&signed.signer), signed.digest)),
            Err(reason) => reasons.add(printable(&reason)),
        }
    }
    let signers = check.signers.join(", ");
    let signers = shown(&signers);
    // A missing signature and a wrong one have different remedies.
    if claims.is_empty() {
        return Err(format!(
            "no signature of {} was found; have it signed by {signers}",
            subject.target.digest
        ));
    }
    Err(format!("{}; have it signed by {signers}", reasons.text(claims.len())))
}

fn one(
    check: &SignatureCheck,
    subject: &Subject,
    claim: &Claim,
    verify: Verify<'_>,
) -> Result<Signed, String> {
    let formats = check.expectation.formats;
    // `verify` refuses other formats too, but cannot say which requirement accepts them.
    match claim {
        Claim::Bundle { .. } if !formats.bundle => {
            return Err(
                "it is a bundle, which names no repository that signedIdentity could check; accept bundles with \
                        the requirement sigstoreBundle"
                    .to_owned(),
            );
        }
        Claim::Simple { .. } if !formats.simple => {
            return Err("it is a .sig signature, which none of the predicateTypes stands for".to_owned());
        }
        _ => {}
    }
    let signed = verify(claim, &check.expectation, &subject.digests).map_err(|error| error.to_string())?;
    match (&check.identity, &signed.docker_reference) {
        (None, _) => Ok(signed),
        (Some(identity), Some(name)) => identity.check(&subject.reference, name).map(|()| signed),
        // Unreachable while only `.sig` signatures are accepted here; fail closed.
        (Some(_), None) => Err("it names no repository that signedIdentity could check".to_owned()),
    }
}

/// Different reasons in the order of the claims, each with the number of claims that it applies to.
#[derive(Default)]
struct Reasons(Vec<(String, usize)>);

impl Reasons {
    fn add(&mut self, reason: String) {
        match self.0.iter_mut().find(|(have, _)| *have == reason) {
            Some((_, count)) => *count += 1,
            None => self.0.push((reason, 1)),
        }
    }

    fn text(&self, claims: usize) -> String {
        let found = if claims == 1 {
            "1 signature was found".to_owned()
        } else {
            format!("{claims} signatures were found")
        };
        let one = |(reason, count): &(String, usize)| match (claims, count) {
            (1, _) => reason.clone(),
            (_, count) => format!("({count} of them) {reason}"),
        };
        let mut reasons: Vec<_> = self.0.iter().take(REASONS_MAX).map(one).collect();
        if self.0.len() > REASONS_MAX {
            reasons.push(format!("and {} more reasons", self.0.len() - REASONS_MAX));
        }
        format!("{found}, but none satisfies the requirement: {}", reasons.join("; "))
    }
}

/// Foreign text for one line of a log: short, without control characters.
pub(super) fn printable(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown(&one_line)
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
