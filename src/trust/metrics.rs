//! Metrics of verification: decisions about images, and results of signatures.

use crate::metrics::{Counters, Description, Family, Instruments, Label};

const ADMISSIONS: Description = Description::new(
    "admissions_total",
    "Decisions of the policy about images that were to be mounted, by verdict and reason in one",
);
const SIGNATURES: Description =
    Description::new("signatures_total", "Signatures that were looked at, by whether they hold");

/// The metrics of verification. Clones share their counters.
#[derive(Debug, Clone)]
pub struct TrustMetrics {
    admissions: Counters<Reason>,
    signatures: Counters<SignatureResult>,
}

/// Why an image was admitted or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Admitted: the signatures that the policy requires are valid.
    Signed,
    /// Admitted: the policy requires no signature of this image, or the node has no policy and admits everything.
    NothingDemanded,
    /// Admitted, although the policy is not satisfied: it only warns.
    Warned,
    /// Refused: the policy rejects this image whoever signed it, or there is no policy.
    Rejected,
    /// Refused: no signature was found.
    Unsigned,
    /// Refused: signatures were found, but none satisfies the policy.
    Untrusted,
    /// Refused: the composefs digest is missing or does not match, or the integrity level is too low.
    Unbound,
}

/// The result of one signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureResult {
    /// It is valid.
    Verified,
    /// It is not valid.
    Failed,
}

impl Label for Reason {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::Signed,
        Self::NothingDemanded,
        Self::Warned,
        Self::Rejected,
        Self::Unsigned,
        Self::Untrusted,
        Self::Unbound,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Signed => "admitted_signed",
            Self::NothingDemanded => "admitted_nothing_demanded",
            Self::Warned => "admitted_warned",
            Self::Rejected => "refused_rejected",
            Self::Unsigned => "refused_unsigned",
            Self::Untrusted => "refused_untrusted",
            Self::Unbound => "refused_unbound",
        }
    }
}

impl Label for SignatureResult {
    const NAME: &'static str = "result";
    const ALL: &'static [Self] = &[Self::Verified, Self::Failed];

    fn value(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

impl Default for TrustMetrics {
    fn default() -> Self {
        Self { admissions: Counters::new(ADMISSIONS), signatures: Counters::new(SIGNATURES) }
    }
}

impl Instruments for TrustMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.admissions, &self.signatures]
    }
}

impl TrustMetrics {
    /// Counts one decision about an image.
    pub(super) fn judged(&self, reason: Reason) {
        self.admissions.add(reason, 1);
    }

    /// Counts one verified or failed signature.
    pub(super) fn signature(&self, result: SignatureResult) {
        self.signatures.add(result, 1);
    }
}
