//! Serves the CSI services on a Unix socket until the shutdown.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use super::authority::AuthorityRewriter;
use super::endpoint::ListeningSocket;
use super::metrics::RpcMetrics;
use super::span::RpcSpan;
use crate::kind::Kind;

type Route = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The gRPC services of one process by name, and the metrics of their calls.
#[derive(Clone, Default)]
pub struct Services(BTreeMap<&'static str, Route>, RpcMetrics);

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Services {
    /// Adds a generated server such as `IdentityServer`.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.0.insert(S::NAME, BoxCloneSyncService::new(service));
        self
    }

    /// The metrics of the calls.
    pub(crate) fn metrics(&self) -> &RpcMetrics {
        &self.1
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The path is `/package.Service/Method`.
        let name = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match self.0.get(name) {
            Some(route) => Box::pin(route.clone().oneshot(request)),
            None => {
                let text = format!("service {name:?} is not served by this process");
                Box::pin(async move { Ok(Status::new(Code::Unimplemented, text).into_http()) })
            }
        }
    }
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
#[error("serving CSI calls failed: {0}; the plugin must be restarted")]
pub struct ServeError(#[from] tonic::transport::Error);

impl ServeError {
    /// A bug: the transport only fails if the process cannot go on.
    pub fn kind(&self) -> Kind {
        Kind::Bug
    }
}

/// Serves until `shutdown`, then lets the running calls finish, for at most `drain`.
///
/// The socket's name is removed before this returns. Calls that outlast `drain` are dropped. By design, that interrupts
/// neither a pull nor a mount.
///
/// # Errors
/// The transport failed.
pub async fn serve(
    listening: ListeningSocket,
    services: Services,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<(), ServeError> {
    let ListeningSocket { listener, owned } = listening;
    let metrics = services.metrics().clone();
    let serving = tonic::transport::Server::builder().serve_with_incoming_shutdown(
        RpcSpan::new(services, metrics),
        UnixListenerStream::new(listener).map_ok(AuthorityRewriter::new),
        shutdown.cancelled(),
    );
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    let outcome = tokio::select! {
        outcome = serving => outcome.map_err(ServeError),
        () = overdue => {
            tracing::warn!(seconds = drain.as_secs(), "dropping calls that still run at shutdown");
            Ok(())
        }
    };
    // Last: while calls drain, another process must not take the name for a stale one.
    drop(owned);
    outcome
}
