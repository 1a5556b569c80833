//! Flags for trust: which images may be mounted.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::trust::{PolicyMode, TrustSettings, VERIFIER_TIMEOUT, WithoutPolicy};

/// Settings for which images may be mounted.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which images may be mounted")]
pub struct TrustArgs {
    /// The signature policy, a containers-policy.json(5) file. There is none by default.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A directory of `<namespace>.json` files, each the whole policy for the pods of that namespace. Other
    /// namespaces use `--policy`.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_POLICY_DIR", value_name = "DIR")]
    policy_dir: Option<PathBuf>,
    /// What happens to images without a policy file.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_WITHOUT_POLICY", value_enum, default_value = "reject")]
    without_policy: WithoutPolicyArg,
    /// Whether signatures that are missing or wrong refuse an image.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_POLICY_MODE", value_enum, default_value = "enforce")]
    policy_mode: PolicyModeArg,
    /// A directory of containerd image verifier programs. All of them and the policy must allow an image.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_VERIFIER_DIR", value_name = "DIR")]
    verifier_dir: Option<PathBuf>,
    /// Seconds that one verifier program may take.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_VERIFIER_TIMEOUT", value_name = "SECONDS",
          default_value_t = VERIFIER_TIMEOUT.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=600))]
    verifier_timeout: u64,
}

/// What happens to images without a policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WithoutPolicyArg {
    /// They are refused.
    Reject,
    /// They are mounted, without any check of who made them.
    Accept,
}

/// Whether the policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyModeArg {
    /// They do.
    Enforce,
    /// They are logged and counted, and the image is mounted. What a policy rejects outright is refused all the same.
    Warn,
}

impl TrustArgs {
    /// The arguments as settings.
    pub fn settings(&self) -> TrustSettings {
        TrustSettings {
            policy: self.policy.clone(),
            policy_dir: self.policy_dir.clone(),
            without_policy: match self.without_policy {
                WithoutPolicyArg::Reject => WithoutPolicy::Reject,
                WithoutPolicyArg::Accept => WithoutPolicy::Accept,
            },
            mode: match self.policy_mode {
                PolicyModeArg::Enforce => PolicyMode::Enforce,
                PolicyModeArg::Warn => PolicyMode::Warn,
            },
            verifier_dir: self.verifier_dir.clone(),
            verifier_timeout: Duration::from_secs(self.verifier_timeout),
        }
    }
}
