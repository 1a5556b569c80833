//! Flags for who may have the images that are here.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::image::access::{AccessRule, ImagePattern, Verification};

/// Who may have the images that are here.
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    /// Which images pods get without having shown the registry credentials that may read them.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_IMAGE_CREDENTIAL_POLICY",
        value_enum,
        default_value_t = CredentialPolicy::NeverVerifyPreloadedImages
    )]
    pub image_credential_policy: CredentialPolicy,
    /// An image (`HOST/REPOSITORY`, or `HOST/PATH/*` for all below) that NeverVerifyAllowlistedImages exempts; may
    /// be repeated.
    #[arg(long = "image-credential-allow", global = true, value_name = "PATTERN")]
    pub image_credential_allow: Vec<ImagePattern>,
    /// Seconds for which the registry's yes to a credential counts; 0 asks at every publish.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_ACCESS_TTL",
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    pub access_ttl: u64,
}

/// Which images pods get without having shown the registry credentials that may read them, by the names of the
/// kubelet's imagePullCredentialsVerificationPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum CredentialPolicy {
    /// All that are here.
    NeverVerify,
    /// Those that `composefs-csi pull` brought.
    NeverVerifyPreloadedImages,
    /// Those that --image-credential-allow names.
    NeverVerifyAllowlistedImages,
    /// None, but for what anybody can read.
    AlwaysVerify,
}

impl AccessArgs {
    /// The rule that they make.
    pub fn rule(&self) -> AccessRule {
        AccessRule {
            verification: match self.image_credential_policy {
                CredentialPolicy::NeverVerify => Verification::NeverVerify,
                CredentialPolicy::NeverVerifyPreloadedImages => Verification::NeverVerifyPreloadedImages,
                CredentialPolicy::NeverVerifyAllowlistedImages => Verification::NeverVerifyAllowlistedImages,
                CredentialPolicy::AlwaysVerify => Verification::AlwaysVerify,
            },
            allow: self.image_credential_allow.clone(),
            ttl: Duration::from_secs(self.access_ttl),
        }
    }
}
