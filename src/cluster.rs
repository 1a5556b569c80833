//! The client of the API server. Each use of it is opt-in and needs its own permissions.
//!
//! | module | needs | for |
//! |---|---|---|
//! | [`pull_secrets`] | get pods, serviceaccounts, secrets | `--pull-secrets` |
//! | [`events`] | create, patch events | `--kubernetes-events` |
//! | [`taint`] | get, patch its node; get csinodes | `--startup-taint` |
//! | [`claims`] | get persistentvolumeclaims | the controller's `--pvc-annotations` |
//! | [`prefetch`] | imageprefetches, nodeimagecaches; get its node, or list nodes | `--image-prefetch` |
//!
//! Every request ends within [`TIMEOUT`], and every watch is begun anew after [`WATCH_TIMEOUT`] of silence. The text of an API server's error may be shown; the contents of an object never
//! are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::kind::Kind;

pub(crate) mod claims;
pub(crate) mod events;
pub(crate) mod prefetch;
pub(crate) mod pull_secrets;
pub(crate) mod taint;

/// Timeout of a connection attempt and of each answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a watch may say nothing. API servers end watches within five minutes by themselves.
const WATCH_TIMEOUT: Duration = Duration::from_secs(330);

/// A client of the API server. Clones share the connections.
#[derive(Clone)]
pub struct Cluster(Client);

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

/// Why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// There are no usable settings for a client.
    #[error(
        "the API server cannot be found {how}: {why}; run in a pod with a ServiceAccount, or give --kubeconfig"
    )]
    Settings {
        /// Where the settings should be.
        how: String,
        /// What is wrong.
        why: String,
    },
    /// The ServiceAccount lacks the permission.
    #[error(
        "the API server does not let the plugin {action}; give its ServiceAccount the right to, see docs/credentials.md"
    )]
    Forbidden {
        /// The attempted action, an infinitive.
        action: String,
    },
    /// The object does not exist.
    #[error("cannot {action}: it does not exist; it may have been deleted")]
    Missing {
        /// The attempted action, an infinitive.
        action: String,
    },
    /// Any other failure.
    #[error("cannot {action}: {why}; it is tried again, look at the API server if this lasts")]
    Failed {
        /// The attempted action, an infinitive.
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
            // 401: the API server does not accept the token of the ServiceAccount.
            kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
                Self::Forbidden { action }
            }
            kube::Error::Api(status) if status.code == 404 => Self::Missing { action },
            kube::Error::Api(status) => Self::Failed { action, why: status.message.clone() },
            // kube's own message is vague; the causes have the details.
            other => Self::Failed { action, why: chain(other) },
        }
    }
}

/// An error and its causes, without repetitions.
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
    /// A client with the settings of a kubeconfig, or of the pod's ServiceAccount. Sends no request.
    ///
    /// # Errors
    /// The settings are missing or malformed.
    pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        Self::connect_for(kubeconfig, TIMEOUT).await
    }

    /// The same for watches, which say nothing while nothing changes.
    ///
    /// # Errors
    /// The settings are missing or malformed.
    pub(crate) async fn connect_to_watch(kubeconfig: Option<&Path>) -> Result<Self, ClusterError> {
        Self::connect_for(kubeconfig, WATCH_TIMEOUT).await
    }

    async fn connect_for(kubeconfig: Option<&Path>, silence: Duration) -> Result<Self, ClusterError> {
        let how =
            kubeconfig.map_or_else(|| "from inside a pod".to_owned(), |p| format!("by {}", p.display()));
        let failed = |why: String| ClusterError::Settings { how: how.clone(), why };
        let mut config = match kubeconfig {
            Some(path) => by_file(path.to_owned()).await.map_err(&failed)?,
            None => Config::incluster().map_err(|error| failed(error.to_string()))?,
        };
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(silence);
        config.write_timeout = Some(TIMEOUT);
        // The idle time of a connection must not count against the next answer.
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
