//! The API server: the only module that talks to it, and each thing it does is an opt-in with rights of its own.
//!
//! | module | needs | for |
//! |---|---|---|
//! | [`pull_secrets`] | get pods, serviceaccounts, secrets | `--pull-secrets` |
//! | [`events`] | create, patch events | `--kubernetes-events` |
//! | [`taint`] | get, patch its node; get csinodes | `--startup-taint` |
//! | [`claims`] | get persistentvolumeclaims | the controller's `--pvc-annotations` |
//!
//! Every request ends within [`TIMEOUT`]. What the API server says in an error may be shown; what it says in an
//! object never is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::kind::Kind;

pub mod claims;
pub mod events;
pub mod pull_secrets;
pub mod taint;

/// Time limit for connecting and for each answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the API server. Clones share its connections.
#[derive(Clone)]
pub struct Cluster(Client);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

/// Why the API server could not be asked, or what it had against it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The settings make no client.
    #[error(
        "the API server cannot be found {how}: {why}; run in a pod with a ServiceAccount, or give --kubeconfig"
    )]
    Settings {
        /// Where the settings should have been.
        how: String,
        /// What is wrong.
        why: String,
    },
    /// The ServiceAccount may not.
    #[error(
        "the API server does not let the plugin {action}; give its ServiceAccount the right to, see docs/credentials.md"
    )]
    Forbidden {
        /// What was to be done, an infinitive.
        action: String,
    },
    /// It does not exist.
    #[error("cannot {action}: it does not exist; it may have been deleted")]
    Missing {
        /// What was to be done, an infinitive.
        action: String,
    },
    /// Anything else.
    #[error("cannot {action}: {why}; it is tried again, look at the API server if this lasts")]
    Failed {
        /// What was to be done, an infinitive.
        action: String,
        /// What happened.
        why: String,
    },
}

impl ClusterError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Settings { .. } => Kind::Invalid,
            Self::Forbidden { .. } => Kind::Unsupported,
            Self::Missing { .. } => Kind::NotFound,
            Self::Failed { .. } => Kind::Transient,
        }
    }

    fn of(action: String, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
                Self::Forbidden { action }
            }
            kube::Error::Api(status) if status.code == 404 => Self::Missing { action },
            kube::Error::Api(status) => Self::Failed { action, why: status.message.clone() },
            // The causes say more than kube's first word of it.
            other => Self::Failed { action, why: chain(other) },
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

impl Cluster {
    /// A client as a kubeconfig says, or as the pod's ServiceAccount does. Does no request.
    ///
    /// # Errors
    /// There is neither, or it is malformed.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        let how =
            kubeconfig.map_or_else(|| "from inside a pod".to_owned(), |p| format!("by {}", p.display()));
        let failed = |why: String| ClusterError::Settings { how: how.clone(), why };
        let mut config = match kubeconfig {
            Some(path) => by_file(path.to_owned()).await.map_err(&failed)?,
            None => Config::incluster().map_err(|error| failed(error.to_string()))?,
        };
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        config.write_timeout = Some(TIMEOUT);
        // An idle connection's time must not count against the next answer.
        config.reset_reader_on_write = true;
        Client::try_from(config).map(Self).map_err(|error| failed(error.to_string()))
    }
}

async fn by_file(path: PathBuf) -> Result<Config, String> {
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(path)).await;
    let kubeconfig = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| error.to_string())
}
