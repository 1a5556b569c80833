//! The monitoring port: `/metrics`, `/healthz`, `/readyz`. It changes nothing, needs no credentials, and reveals
//! nothing about tenants.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connections::{self, text};
use super::supervise::Alive;
use crate::csi::readiness::Readiness;
use crate::metrics::MetricsRegistry;

/// The sources of the answers.
#[derive(Debug, Clone)]
pub struct Monitored {
    /// Answers `/metrics`.
    pub metrics: MetricsRegistry,
    /// Answers `/healthz`.
    pub alive: Alive,
    /// Answers `/readyz`.
    pub ready: Readiness,
}

/// Listens, so that an occupied port is reported at the start. `[::]` stands for all addresses of both families
/// (ipv6(7)), and on a node without IPv6 for those of IPv4: the chart does not know which family a cluster uses.
///
/// # Errors
/// Those of bind(2).
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match (TcpListener::bind(address).await, without_ipv6(address)) {
        // An occupied port is reported, not avoided by listening on the other family.
        (Err(error), Some(other)) if error.kind() != ErrorKind::AddrInUse => {
            tracing::debug!("there is no IPv6 here: {error}");
            TcpListener::bind(other).await
        }
        (bound, _) => bound,
    };
    bound.with_context(|| format!("cannot listen on {address}; choose another --metrics-listen"))
}

/// The address to use instead if the kernel has no IPv6.
fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    let every = address.is_ipv6() && address.ip().is_unspecified();
    every.then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

/// Serves until the shutdown, and then drops open connections.
pub async fn serve(
    listener: TcpListener,
    monitored: Monitored,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let answer = move |request: Request<Incoming>| {
        let monitored = monitored.clone();
        async move { monitored.answer(request.method(), request.uri().path()).await }
    };
    connections::serve(listener, "metrics", answer, shutdown).await
}

impl Monitored {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "this port is read-only\n".to_owned());
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
            "/readyz" => verdict(self.ready.problem().await),
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

    #[tokio::test]
    async fn answers_say_what_is_missing() {
        let monitored = Monitored {
            metrics: MetricsRegistry::new().unwrap(),
            alive: Alive::default(),
            ready: Readiness::default(),
        };
        let status = async |method: Method, path| monitored.answer(&method, path).await.status();
        assert_eq!(status(Method::GET, "/healthz").await, StatusCode::OK);
        assert_eq!(status(Method::GET, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        monitored.ready.set(true);
        assert_eq!(status(Method::GET, "/readyz").await, StatusCode::OK);
        monitored.alive.note_end("volumes");
        assert_eq!(status(Method::GET, "/healthz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(Method::PUT, "/metrics").await, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(status(Method::GET, "/metrics/../etc").await, StatusCode::NOT_FOUND);
        assert_eq!(status(Method::HEAD, "/metrics").await, StatusCode::OK);
    }
}
