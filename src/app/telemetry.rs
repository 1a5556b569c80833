//! Logs and traces: where they go, how they look, how much of them.
//!
//! The log's level can change while the process runs ([`level`]); traces ([`otlp`]) have a level of their own,
//! so that a quiet log does not make them disappear.

use std::path::PathBuf;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub mod level;
pub mod otlp;

use level::LevelFile;
use otlp::{Export, ExportError, Exporter};

/// What is logged, and where it and the spans go.
#[derive(Debug, Clone, Default)]
pub struct TelemetrySettings {
    /// Level or filter of the log.
    pub filter: String,
    /// One JSON object per line instead of text for people.
    pub json: bool,
    /// A file with the filter, re-read while the process runs.
    pub level_file: Option<PathBuf>,
    /// Where spans are sent.
    pub export: Option<Export>,
}

/// A log filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level {filter:?} is not understood ({why}); use error, warn, info, debug, trace or module=level"
)]
pub struct BadFilter {
    filter: String,
    why: String,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// The exporter of spans.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// What has to be kept going, and ended.
#[derive(Debug)]
pub struct Telemetry {
    /// Follows the file of the level, where there is one.
    pub level: Option<LevelFile>,
    /// Sends spans, where there is somewhere to send them.
    pub exporter: Option<Exporter>,
}

/// Sends the log to standard error from now on, and spans where the settings say. Needs a runtime if spans
/// are sent.
///
/// # Errors
/// A filter or an endpoint is malformed.
pub fn init(settings: TelemetrySettings) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if settings.json {
        lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed()
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        lines.with_ansi(terminal).with_target(false).with_filter(filter).boxed()
    };
    let mut layers = vec![lines];
    let exporter = settings.export.map(Exporter::start).transpose()?;
    layers.extend(exporter.as_ref().map(Exporter::layer));
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layers));
    let level = settings.level_file.map(|path| LevelFile::new(path, settings.filter, handle));
    Ok(Telemetry { level, exporter })
}

fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    EnvFilter::try_new(filter)
        .map_err(|error| BadFilter { filter: filter.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bad_filter_is_named() {
        let error = super::parse("composefs_csi=loud").unwrap_err().to_string();
        assert!(error.contains("composefs_csi=loud"), "{error}");
    }
}
