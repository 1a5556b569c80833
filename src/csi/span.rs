//! One span per call, and one log line if the call fails.
//!
//! Errors are logged here, once; code that returns an error does not log it. The services fill in the fields
//! `volume.id`, `image.digest` and `target_path` as soon as they know them, with [`tracing::Span::record`]. Requests
//! themselves are never logged: they may contain secrets.

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
pub(crate) struct RpcSpan<S> {
    inner: S,
    metrics: RpcMetrics,
}

impl<S> RpcSpan<S> {
    /// Opens a span for every call to `inner`, and counts the call.
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

/// Records in the current span which volume the call is about.
pub(crate) fn note_volume(id: &dyn std::fmt::Display) {
    Span::current().record("volume.id", field::display(id));
}

/// Logs the answer at a level that fits its code, and returns the code.
fn log(response: &Response<Body>, begun: Instant) -> Code {
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    // The answer to a failed unary call has headers only, and they contain the status.
    let Some(status) = Status::from_header_map(response.headers()) else {
        tracing::debug!(milliseconds, "answered");
        return Code::Ok;
    };
    let (code, message) = (status.code(), status.message());
    match code {
        // Expected in operation: unsupported calls of the sidecars, retries, and pulls that go on.
        Code::Ok => tracing::debug!(milliseconds, "answered"),
        Code::Unimplemented | Code::Aborted | Code::DeadlineExceeded => {
            tracing::info!(milliseconds, ?code, "{message}");
        }
        Code::Internal | Code::DataLoss | Code::Unknown => {
            tracing::error!(milliseconds, ?code, "{message}");
        }
        _ => tracing::warn!(milliseconds, ?code, "{message}"),
    }
    // After the line, which has the code as a field of its own.
    Span::current().record("code", field::debug(code));
    code
}
