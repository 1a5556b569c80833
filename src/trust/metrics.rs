//! Verification counted: what the policy said of images, and what became of their signatures.

use crate::metrics::{Counters, Description, Family, Instruments, Label};

const ADMISSIONS: Description = Description::new(
    "admissions_total",
    "Decisions of the policy about images that were to be mounted, by verdict and reason in one",
);
const SIGNATURES: Description =
    Description::new("signatures_total", "Signatures that were looked at, by whether they hold");

/// The metrics of verification. Clones count into the same.
#[derive(Debug, Clone)]
pub struct TrustMetrics {
    admissions: Counters<Reason>,
    signatures: Counters<SignatureResult>,
}

/// Why an image was admitted or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Admitted: signatures that the policy demands hold.
    Signed,
    /// Admitted: the policy demands no signature of this image, or the node enforces none.
    NothingDemanded,
    /// Refused: the policy rejects this image whatever signs it, or there is no policy.
    Rejected,
    /// Refused: no signature was found.
    Unsigned,
    /// Refused: signatures were found, and none is what the policy demands.
    Untrusted,
    /// Refused: the composefs digest is missing or another one, or the integrity level is too low.
    Unbound,
}

/// What became of one signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureResult {
    /// It holds.
    Verified,
    /// It does not.
    Failed,
}

impl Label for Reason {
    const NAME: &'static str = "reason";
    const ALL: &'static [Self] = &[
        Self::Signed,
        Self::NothingDemanded,
        Self::Rejected,
        Self::Unsigned,
        Self::Untrusted,
        Self::Unbound,
    ];

    fn value(self) -> &'static str {
        match self {
            Self::Signed => "admitted_signed",
            Self::NothingDemanded => "admitted_nothing_demanded",
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
    pub fn judged(&self, reason: Reason) {
        self.admissions.add(reason, 1);
    }

    /// Counts one signature that was looked at.
    pub fn signature(&self, result: SignatureResult) {
        self.signatures.add(result, 1);
    }
}
