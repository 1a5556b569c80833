//! The operator's settings of trust.

use std::path::PathBuf;
use std::time::Duration;

/// Where policies and verifiers are, and what happens without a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustSettings {
    /// The policy file, containers-policy.json(5).
    pub policy: Option<PathBuf>,
    /// A directory of `<namespace>.json` files, each the whole policy for the pods of that namespace.
    pub policy_dir: Option<PathBuf>,
    /// What happens if no policy file governs.
    pub without_policy: WithoutPolicy,
    /// Whether signatures that are missing or wrong refuse an image.
    pub mode: PolicyMode,
    /// A directory of verifier programs. All of them and the policy must admit an image.
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
            mode: PolicyMode::Enforce,
            verifier_dir: None,
            verifier_timeout: VERIFIER_TIMEOUT,
        }
    }
}

/// What happens if no policy file governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WithoutPolicy {
    /// Admit nothing.
    #[default]
    Reject,
    /// Admit everything.
    Accept,
}

/// Whether the policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyMode {
    /// It is.
    #[default]
    Enforce,
    /// Signatures that are missing or wrong, and verifier programs that refuse, are logged and counted. What a policy
    /// rejects outright is refused.
    Warn,
}
