//! Spans for OpenTelemetry: a thread of the SDK sends them in batches over OTLP/HTTP. A slow or missing collector
//! costs spans, but never delays a call: the queue is bounded, and spans that do not fit are dropped. A failure to
//! send is logged once until sending works again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanProcessor};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Layer, Registry};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long sending the last spans may delay the end of the process.
const FLUSH: Duration = Duration::from_secs(5);

/// Where spans are sent, and which service and node they name.
#[derive(Debug, Clone)]
pub struct Export {
    /// The collector's base URL, such as `http://collector:4318`.
    pub endpoint: String,
    /// `service.name`.
    pub service: &'static str,
    /// `k8s.node.name`.
    pub node: Option<String>,
}

/// An unusable setting.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {endpoint:?}: {why}; write --otlp-endpoint as http://HOST:4318")]
pub struct ExportError {
    endpoint: String,
    why: String,
}

/// Sends spans until it is ended.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Starts sending. The caller must be inside the runtime that makes the requests.
    ///
    /// # Errors
    /// The endpoint is not an http or https URL.
    pub fn start(export: Export) -> Result<Self, ExportError> {
        let failed = |why: String| ExportError { endpoint: export.endpoint.clone(), why };
        let base = export.endpoint.trim_end_matches('/');
        let url = reqwest::Url::parse(base).map_err(|error| failed(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(failed(format!("its scheme is {}", url.scheme())));
        }
        let http = reqwest::Client::builder().timeout(TIMEOUT).build();
        let runtime = tokio::runtime::Handle::try_current();
        let post = Post {
            http: http.map_err(|error| failed(error.to_string()))?,
            runtime: runtime.map_err(|error| failed(error.to_string()))?,
            failing: Arc::default(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(post)
            .with_endpoint(format!("{base}/v1/traces"))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let mut attributes = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
        attributes.extend(export.node.clone().map(|node| KeyValue::new("k8s.node.name", node)));
        let resource = Resource::builder().with_service_name(export.service).with_attributes(attributes);
        let batches = BatchSpanProcessor::builder(exporter).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Calls(batches))
            .with_resource(resource.build())
            .build();
        Ok(Self(provider))
    }

    /// The layer that turns spans of this program into OpenTelemetry spans.
    pub fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let ours = Targets::new().with_target("composefs_csi", tracing::Level::INFO);
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer("composefs-csi"));
        layer
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
            .boxed()
    }

    /// Sends the remaining spans, for a few seconds at most. Blocking; the runtime must still be running.
    pub fn end(&self) {
        // Failures to send have been logged already.
        let _ = self.0.shutdown_with_timeout(FLUSH);
    }
}

/// Sends requests for the SDK's thread, which has no runtime of its own.
#[derive(Debug)]
struct Post {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
    failing: Arc<AtomicBool>,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        // reqwest needs the runtime, and this thread is outside of it.
        let sent = self.runtime.spawn(async move {
            let answer = http.execute(request.try_into()?).await?;
            let status = answer.status();
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            Ok::<_, reqwest::Error>(response)
        });
        // The URL may contain credentials.
        let answer = sent.await?.map_err(|error| error.without_url());
        let failed = match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            // Only the first failure of a series is logged.
            if !self.failing.swap(true, Ordering::Relaxed) {
                tracing::warn!("spans are lost, the collector does not accept them: {why}");
            }
        } else if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the collector accepts spans again");
        }
        Ok(answer?)
    }
}

/// Turns spans of calls into server spans: named by the method, and failed if the answer is an error.
#[derive(Debug)]
struct Calls(BatchSpanProcessor);

impl SpanProcessor for Calls {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, mut span: SpanData) {
        let attribute = |key: &str| {
            let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
            found.and_then(|pair| match &pair.value {
                Value::String(text) => Some(text.as_str().to_owned()),
                _ => None,
            })
        };
        if let Some(rpc) = attribute("rpc") {
            let code = attribute("code");
            span.name = rpc.into();
            span.span_kind = SpanKind::Server;
            if let Some(code) = code {
                span.status = Status::error(code);
            }
        }
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}
