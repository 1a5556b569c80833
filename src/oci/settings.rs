//! The settings that all sources share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::Credentials;
use super::limits::ImageLimits;
use super::mirrors::MirrorSettings;
use super::registry::{DocumentRules, Pace, RegistryMetrics, RetryPolicy};

/// How registries are reached, and the caps on images.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Registries (`HOST[:PORT]`) reached by plain HTTP. No host is implied, not even loopback.
    pub insecure_registries: BTreeSet<String>,
    /// A file that lists more of them, one on a line. It is read again when it changes.
    pub insecure_file: Option<PathBuf>,
    /// PEM files with certificate authorities trusted in addition to the system's. They are read again when they change.
    pub ca_files: Vec<PathBuf>,
    /// Where the files about mirrors are.
    pub mirrors: MirrorSettings,
    /// The node's own credentials, used for a repository that the caller's do not cover.
    pub default_credentials: Credentials,
    /// A docker config.json with more of them, which go before. It is read again when it changes.
    pub auth_file: Option<PathBuf>,
    /// The directory of the helper programs that the auth file may name; none are run without it.
    pub credential_helpers: Option<PathBuf>,
    /// Time limit for connecting, TLS included.
    pub connect_timeout: Duration,
    /// Time limit for the next bytes, of headers or content.
    pub read_timeout: Duration,
    /// Time limit for a whole manifest, config or list with its token, which are small; over all attempts.
    pub document_timeout: Duration,
    /// How many of those are fetched at a time.
    pub documents: DocumentRules,
    /// The minimum transfer rate of a blob's connection.
    pub pace: Pace,
    /// Caps on images.
    pub limits: ImageLimits,
    /// How transient failures are retried.
    pub retry: RetryPolicy,
    /// Whether `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the environment apply.
    pub proxy_from_environment: bool,
    /// Where requests are counted.
    pub metrics: RegistryMetrics,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            insecure_registries: BTreeSet::new(),
            insecure_file: None,
            ca_files: Vec::new(),
            mirrors: MirrorSettings::default(),
            default_credentials: Credentials::none(),
            auth_file: None,
            credential_helpers: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            document_timeout: Duration::from_secs(120),
            documents: DocumentRules::default(),
            pace: Pace::default(),
            limits: ImageLimits::default(),
            retry: RetryPolicy::default(),
            proxy_from_environment: true,
            metrics: RegistryMetrics::default(),
        }
    }
}
