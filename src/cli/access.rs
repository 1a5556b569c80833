//! Flags for who may use the images in the store.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::image::access::{AccessRule, ImagePattern, Verification};

/// Who may use the images in the store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Who may use the images in the store")]
pub struct AccessArgs {
    /// Which images pods may use without registry credentials that can read them.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_IMAGE_CREDENTIAL_POLICY",
        value_enum,
        default_value_t = CredentialPolicy::NeverVerifyPreloadedImages
    )]
    pub image_credential_policy: CredentialPolicy,
    /// An image (`HOST/REPOSITORY`, or `HOST/PATH/*` for all below a path) that NeverVerifyAllowlistedImages
    /// exempts; may be repeated, or hold several with commas between them.
    #[arg(
        long = "image-credential-allow",
        global = true,
        env = "COMPOSEFS_CSI_IMAGE_CREDENTIAL_ALLOW",
        value_name = "PATTERN",
        value_delimiter = ','
    )]
    pub image_credential_allow: Vec<ImagePattern>,
    /// Seconds for which a credential that the registry accepted is not checked again; 0 asks at every publish.
    #[arg(
        long,
        global = true,
        env = "COMPOSEFS_CSI_ACCESS_TTL",
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    pub access_ttl: u64,
}

/// Which images pods may use without registry credentials that can read them. The names are those of the kubelet's
/// imagePullCredentialsVerificationPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum CredentialPolicy {
    /// All images in the store.
    NeverVerify,
    /// Images that `composefs-csi pull` fetched.
    NeverVerifyPreloadedImages,
    /// Images that --image-credential-allow names.
    NeverVerifyAllowlistedImages,
    /// None, except images that anybody can read.
    AlwaysVerify,
}

impl AccessArgs {
    /// The arguments as an access rule.
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
