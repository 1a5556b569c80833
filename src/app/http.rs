//! The port for machines that watch: `/metrics`, `/healthz`, `/readyz`. It reads and never changes anything,
//! asks for no credentials, and tells nothing of any tenant.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::supervise::Alive;
use crate::csi::identity::Readiness;
use crate::metrics::MetricsRegistry;

/// Connections at a time: a scraper, kubelet, and some to spare. More wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take over its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the port tells.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Answers `/metrics`.
    pub metrics: MetricsRegistry,
    /// Answers `/healthz`.
    pub alive: Alive,
    /// Answers `/readyz`.
    pub ready: Readiness,
}

/// Listens, so that a port that is taken is known at once. `[::]` is every address of both families (ipv6(7)), and
/// those of IPv4 on a node without IPv6: a cluster has the one or the other, and the chart does not know which.
///
/// # Errors
/// Those of bind(2).
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match (TcpListener::bind(address).await, without_ipv6(address)) {
        (Err(error), Some(other)) if error.kind() != ErrorKind::AddrInUse => {
            tracing::debug!("there is no IPv6 here: {error}");
            TcpListener::bind(other).await
        }
        (bound, _) => bound,
    };
    bound.with_context(|| format!("cannot listen on {address}; choose another --metrics-listen"))
}

/// What is listened on instead where the kernel has no IPv6.
fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let every = address.is_ipv6() && address.ip().is_unspecified();
    every.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

/// Serves until the shutdown; connections that are open then are dropped.
pub async fn serve(
    listener: TcpListener,
    watched: Watched,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, or a client that is gone again: neither ends the plugin.
                tracing::warn!("a connection for metrics cannot be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (watched, token) = (watched.clone(), shutdown.clone());
        connections.spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let response = watched.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer);
            tokio::select! {
                () = token.cancelled() => {}
                // A client that breaks off is its own affair.
                _ = serving => {}
            }
            drop(slot);
        });
    }
}

impl Watched {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "this port only reads\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/metrics" => {
                let mut page = text(StatusCode::OK, self.metrics.text());
                page.headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(MetricsRegistry::MEDIA_TYPE));
                page
            }
            "/healthz" => verdict(self.alive.ended().map(|task| format!("task {task} has ended"))),
            "/readyz" => verdict(self.ready.waiting_for().map(str::to_owned)),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }
}

fn verdict(problem: Option<String>) -> Response<Full<Bytes>> {
    match problem {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_addresses_become_others() {
        let other = |address: &str| without_ipv6(address.parse().unwrap()).map(|other| other.to_string());
        assert_eq!(other("[::]:9809").as_deref(), Some("0.0.0.0:9809"));
        assert_eq!(other("[::1]:9809"), None);
        assert_eq!(other("0.0.0.0:9809"), None);
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let taken = listen(format!("[::]:{port}").parse().unwrap()).await.unwrap_err().to_string();
        assert!(taken.starts_with("cannot listen on"), "{taken}");
    }

    #[test]
    fn answers_say_what_is_missing() {
        let watched = Watched {
            metrics: MetricsRegistry::new().unwrap(),
            alive: Alive::default(),
            ready: Readiness::default(),
        };
        let status = |method: Method, path| watched.answer(&method, path).status();
        assert_eq!(status(Method::GET, "/healthz"), StatusCode::OK);
        assert_eq!(status(Method::GET, "/readyz"), StatusCode::SERVICE_UNAVAILABLE);
        watched.ready.set(true);
        assert_eq!(status(Method::GET, "/readyz"), StatusCode::OK);
        watched.alive.note_end("volumes");
        assert_eq!(status(Method::GET, "/healthz"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(Method::PUT, "/metrics"), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::GET, "/metrics/../etc"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::HEAD, "/metrics"), StatusCode::OK);
    }
}
