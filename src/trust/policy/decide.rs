//! The judgement: requirements and what was found in, an explained outcome for each requirement out. Pure.
//!
//! All requirements must hold. A signature requirement holds if any claim is a signature that it asks for, over
//! any of the subject's digests, of the repository that it asks for; every other claim leaves a reason.

use super::{Check, Requirement, Rule, SignatureCheck};
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::trust::Subject;
use crate::trust::metrics::Reason;
use crate::trust::signature::{Claim, Expectation, SignatureError, Signed};

/// Different reasons that one outcome names; what is found may be anybody's.
const REASONS_MAX: usize = 4;
/// Characters of one reason.
const REASON_MAX: usize = 300;

/// Verifies one claim: [`crate::trust::signature::verify`], but for tests.
pub type Verify<'a> = &'a dyn Fn(&Claim, &Expectation, &[Digest]) -> Result<Signed, SignatureError>;

/// What became of all requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// One for each requirement, in their order.
    pub outcomes: Vec<Outcome>,
    /// The least integrity level that they demand of the mount.
    pub integrity: Option<Integrity>,
}

/// What became of one requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where the requirement stands in the policy.
    pub at: String,
    /// Its type.
    pub kind: &'static str,
    /// By what it holds, or why it does not and what to do.
    pub result: Result<String, String>,
    /// The same as a word for counting.
    pub reason: Reason,
}

impl Judgement {
    /// Whether everything holds.
    pub fn admits(&self) -> bool {
        !self.outcomes.is_empty() && self.outcomes.iter().all(|outcome| outcome.result.is_ok())
    }

    /// By what the image is admitted: `sigstoreSigned by …`.
    pub fn by(&self) -> String {
        let by = self.outcomes.iter().filter_map(|o| o.result.as_ref().ok().map(|by| (o.kind, by)));
        by.map(|(kind, by)| format!("{kind} {by}").trim_end().to_owned()).collect::<Vec<_>>().join(", ")
    }

    /// Why, as a word for counting: what speaks against it first, or else what speaks most for it.
    pub fn reason(&self) -> Reason {
        let against = self.outcomes.iter().find(|outcome| outcome.result.is_err());
        let signed = self.outcomes.iter().find(|outcome| outcome.reason == Reason::Signed);
        against.or(signed).map_or(Reason::NothingDemanded, |outcome| outcome.reason)
    }

    /// Why it is not: the first requirements that do not hold.
    pub fn because(&self) -> String {
        let failed = self.outcomes.iter().filter_map(|o| o.result.as_ref().err().map(|why| (o, why)));
        failed.map(|(o, why)| format!("{} ({}): {why}", o.kind, o.at)).collect::<Vec<_>>().join("; ")
    }
}

/// Judges `subject` by `rule`.
pub fn decide(rule: &Rule<'_>, subject: &Subject, claims: &[Claim], verify: Verify<'_>) -> Judgement {
    let outcome = |requirement: &Requirement| {
        let result = check(&requirement.check, subject, claims, verify);
        let reason = reason(&requirement.check, result.is_ok(), claims.is_empty());
        Outcome { at: requirement.at.clone(), kind: requirement.check.kind(), result, reason }
    };
    let demanded = |requirement: &Requirement| match requirement.check {
        Check::Composefs { integrity, .. } => integrity,
        _ => None,
    };
    Judgement {
        outcomes: rule.requirements.iter().map(outcome).collect(),
        integrity: rule.requirements.iter().filter_map(demanded).max(),
    }
}

fn check(check: &Check, subject: &Subject, claims: &[Claim], verify: Verify<'_>) -> Result<String, String> {
    match check {
        Check::Reject => {
            Err("nothing is admitted here; add a scope for this image to the policy if it should be".to_owned())
        }
        Check::AcceptAnything => Ok(String::new()),
        Check::Unsupported { why, .. } => Err((*why).to_owned()),
        Check::Signature(check) => signature(check, subject, claims, verify),
        Check::Composefs { require_digest: true, .. } if !subject.sealed => Err(
            "the image's manifest carries no composefs digest; add one with `composefs-csi seal` and sign the result"
                .to_owned(),
        ),
        Check::Composefs { require_digest, integrity } => {
            let digest = require_digest.then(|| "digest in the manifest".to_owned());
            let level = integrity.map(|level| format!("integrity {level}"));
            Ok(digest.into_iter().chain(level).collect::<Vec<_>>().join(" and "))
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
            Ok(signed) => return Ok(format!("by {} over {}", printable(&signed.signer), signed.digest)),
            Err(reason) => reasons.add(printable(&reason)),
        }
    }
    let signers = check.signers.join(", ");
    let signers = shown(&signers);
    if claims.is_empty() {
        return Err(format!(
            "no signature of {} was found; let it be signed by {signers}",
            subject.target.digest
        ));
    }
    Err(format!("{}; let it be signed by {signers}", reasons.text(claims.len())))
}

fn one(
    check: &SignatureCheck,
    subject: &Subject,
    claim: &Claim,
    verify: Verify<'_>,
) -> Result<Signed, String> {
    let formats = check.expectation.formats;
    match claim {
        Claim::Bundle { .. } if !formats.bundle => {
            return Err(
                "it is a bundle, which names no repository that signedIdentity could check; ask for bundles by \
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
        (Some(_), None) => Err("it names no repository that signedIdentity could check".to_owned()),
    }
}

/// Reasons in the order in which they came up, each with how many claims it holds for.
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
        format!("{found}, and none will do: {}", reasons.join("; "))
    }
}

/// Text that may come from a registry, for a line of a log.
pub(crate) fn printable(text: &str) -> String {
    let one_line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown(&one_line)
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
