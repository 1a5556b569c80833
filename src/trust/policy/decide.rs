//! The judgement: from requirements and claims, one explained outcome for each requirement. Pure.
//!
//! All requirements must hold. A signature requirement holds if at least one claim is a valid signature by an
//! expected signer, over one of the subject's digests and for the expected repository. Every other claim contributes
//! a reason. Where a list is only to warn, signatures that are missing or wrong do not refuse the image; everything
//! else does.

use super::reasons::{Reasons, printable, shown};
use super::requirement::{Check, Requirement, SignatureCheck};
use super::rule::PolicyRule;
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::trust::metrics::Reason;
use crate::trust::signature::{Claim, Expectation, SignatureError, Signed};
use crate::trust::subject::{Claims, Subject};

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
    /// Whether a failure only warns.
    pub only_warns: bool,
}

impl Judgement {
    /// Whether all requirements hold, except those that only warn.
    pub fn admits(&self) -> bool {
        // An empty list admits nothing, although all of its requirements hold.
        !self.outcomes.is_empty()
            && self.outcomes.iter().all(|outcome| outcome.result.is_ok() || outcome.only_warns)
    }

    /// Why the image would be refused if nothing only warned; `None` if it would not, or is.
    pub(crate) fn warning(&self) -> Option<String> {
        let holds = self.outcomes.iter().all(|outcome| outcome.result.is_ok());
        (self.admits() && !holds).then(|| self.because())
    }

    /// What admits the image: `sigstoreSigned by …`.
    pub(crate) fn by(&self) -> String {
        let by = self.outcomes.iter().filter_map(|o| o.result.as_ref().ok().map(|by| (o.kind, by)));
        by.map(|(kind, by)| format!("{kind} {by}").trim_end().to_owned()).collect::<Vec<_>>().join(", ")
    }

    /// The reason as a metric label: the first failure, or else a signature, if any requirement asked for one.
    pub(crate) fn reason(&self) -> Reason {
        if self.warning().is_some() {
            return Reason::Warned;
        }
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
pub fn decide(rule: &PolicyRule<'_>, subject: &Subject, claims: &Claims, verify: Verify<'_>) -> Judgement {
    let outcome = |requirement: &Requirement| {
        let check = &requirement.check;
        let result = judge(check, subject, claims, verify);
        let reason = reason(check, result.is_ok(), claims.found() == 0);
        let only_warns = rule.only_warns && check.is_of_signatures();
        RequirementOutcome { at: requirement.at.clone(), kind: check.kind(), result, reason, only_warns }
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

fn judge(check: &Check, subject: &Subject, claims: &Claims, verify: Verify<'_>) -> Result<String, String> {
    match check {
        Check::Reject => Err(check.why_hopeless().to_owned()),
        // No reason is needed: the requirement's type says it.
        Check::AcceptAnything | Check::WarnOnly => Ok(String::new()),
        Check::Unsupported { why, .. } => Err((*why).to_owned()),
        Check::Signature(check) => signature(check, subject, claims, verify),
        Check::AnyOf(alternatives) => any_of(alternatives, subject, claims, verify),
        Check::Composefs { require_digest: true, .. } if !subject.sealed => Err(
            "the image's manifest carries no composefs digest; add one with `composefs-csi seal` and sign the result; a volume with \
             `include` or `exclude` has none, since such a digest is that of the whole image: leave them out, or use `path`"
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
        (Check::Signature(_) | Check::AnyOf(_), true) => Reason::Signed,
        (_, true) => Reason::NothingDemanded,
        (Check::Signature(_) | Check::AnyOf(_), false) if nothing_found => Reason::Unsigned,
        (Check::Signature(_) | Check::AnyOf(_), false) => Reason::Untrusted,
        (Check::Composefs { .. }, false) => Reason::Unbound,
        (_, false) => Reason::Rejected,
    }
}

/// The first alternative that holds, or why none does.
fn any_of(
    alternatives: &[Requirement],
    subject: &Subject,
    claims: &Claims,
    verify: Verify<'_>,
) -> Result<String, String> {
    let mut reasons = Vec::new();
    for alternative in alternatives {
        let kind = alternative.check.kind();
        match judge(&alternative.check, subject, claims, verify) {
            Ok(by) => return Ok(format!("({kind}) {by}")),
            Err(why) => reasons.push(format!("{kind}: {why}")),
        }
    }
    Err(format!("none of its alternatives holds: {}", reasons.join("; or ")))
}

fn signature(
    check: &SignatureCheck,
    subject: &Subject,
    claims: &Claims,
    verify: Verify<'_>,
) -> Result<String, String> {
    let mut reasons = Reasons::default();
    for claim in &claims.claims {
        match satisfies(check, subject, claim, verify) {
            // One valid signature is enough; wrong ones beside it do no harm.
            Ok(signed) => return Ok(format!("by {} over {}", printable(&signed.signer), signed.digest)),
            Err(reason) => reasons.add(printable(&reason)),
        }
    }
    let signers = check.signers.join(", ");
    let signers = shown(&signers);
    let limit = if claims.is_cut {
        ". The search ended at its limit (1024 documents, 32 MiB or 60 s), and others were not looked at; remove \
         what is not needed from the signatures and referrers of the image"
    } else {
        ""
    };
    // A missing signature and a wrong one have different remedies.
    if claims.found() == 0 {
        return Err(format!(
            "no signature of {} was found; have it signed by {signers}{limit}",
            subject.target.digest
        ));
    }
    Err(format!("{}; have it signed by {signers}{limit}", reasons.text(claims.found())))
}

/// Whether one claim satisfies the requirement.
pub(super) fn satisfies(
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
