//! What the operator sets about trust.

use std::path::PathBuf;
use std::time::Duration;

/// Where policies and verifiers are, and what holds without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustSettings {
    /// The policy file, containers-policy.json(5).
    pub policy: Option<PathBuf>,
    /// A directory with `<namespace>.json`, each the whole policy for the pods of that namespace.
    pub policy_dir: Option<PathBuf>,
    /// What holds where no policy file governs.
    pub without_policy: WithoutPolicy,
    /// A directory of verifier programs, all of which must agree, besides the policy.
    pub verifier_dir: Option<PathBuf>,
    /// How long one verifier program may take.
    pub verifier_timeout: Duration,
}

/// containerd's limit for one verifier, `per_verifier_timeout`.
pub const VERIFIER_TIMEOUT: Duration = Duration::from_secs(10);

impl Default for TrustSettings {
    fn default() -> Self {
        Self {
            policy: None,
            policy_dir: None,
            without_policy: WithoutPolicy::Reject,
            verifier_dir: None,
            verifier_timeout: VERIFIER_TIMEOUT,
        }
    }
}

/// What holds where no policy file governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithoutPolicy {
    /// Admit nothing.
    #[default]
    Reject,
    /// Admit everything.
    Accept,
}
