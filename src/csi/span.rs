//! One span per call, and one line where it ends badly.
//!
//! This is the edge where errors are logged, once: whoever returns an error does not log it. The fields
//! `volume.id`, `image.digest` and `target_path` are filled in by the services as soon as they are known, with
//! [`tracing::Span::record`]. Requests themselves are never printed: they may carry secrets.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument as _, Span, field};

use super::metrics::{Rpc, RpcMetrics};

/// Wraps the services of a process.
#[derive(Debug, Clone)]
pub struct RpcSpan<S> {
    inner: S,
    metrics: RpcMetrics,
}

impl<S> RpcSpan<S> {
    /// Gives every call to `inner` a span, and counts it.
    pub fn new(inner: S, metrics: RpcMetrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S> Service<Request<Body>> for RpcSpan<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rpc = request.uri().path().rsplit('/').next().unwrap_or_default();
        let span = tracing::info_span!(
            "rpc",
            rpc,
            code = field::Empty,
            volume.id = field::Empty,
            image.digest = field::Empty,
            target_path = field::Empty
        );
        let (begun, counted) = (Instant::now(), self.metrics.start(Rpc::named(rpc)));
        let answer = span.in_scope(|| self.inner.call(request));
        let logged = async move {
            let response = answer.await?;
            counted.answered(log(&response, begun));
            Ok(response)
        };
        Box::pin(logged.instrument(span))
    }
}

/// Notes which volume the current call is about.
pub fn note_volume(id: &dyn std::fmt::Display) {
    Span::current().record("volume.id", field::display(id));
}

/// Logs an answer where it is worth a line, and returns its code.
fn log(response: &Response<Body>, begun: Instant) -> Code {
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    // A failed unary call answers with headers only, which carry the status.
    let Some(status) = Status::from_header_map(response.headers()) else {
        tracing::debug!(milliseconds, "answered");
        return Code::Ok;
    };
    let (code, message) = (status.code(), status.message());
    match code {
        Code::Ok => tracing::debug!(milliseconds, "answered"),
        Code::Unimplemented | Code::Aborted | Code::DeadlineExceeded => {
            tracing::info!(milliseconds, ?code, "{message}");
        }
        Code::Internal | Code::DataLoss | Code::Unknown => {
            tracing::error!(milliseconds, ?code, "{message}");
        }
        _ => tracing::warn!(milliseconds, ?code, "{message}"),
    }
    // After the line, which has it already.
    Span::current().record("code", field::debug(code));
    code
}
