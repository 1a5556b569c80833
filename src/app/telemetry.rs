//! Logs and traces: their destination, format and level.
//!
//! The log level can change while the process runs ([`level`]). Traces ([`otlp`]) have a level of their own, so that
//! a quiet log does not suppress them.

use std::path::PathBuf;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer, Registry, reload};

mod escaped;
mod filter;
pub mod level;
pub mod otlp;

use escaped::EscapedFields;
use filter::BadFilter;
use level::LevelFile;
use otlp::{Export, ExportError, Exporter};

/// What is logged, and where logs and spans are sent.
#[derive(Debug, Clone, Default)]
pub struct TelemetrySettings {
    /// Level or filter of the log.
    pub filter: String,
    /// One JSON object per line instead of text for people.
    pub json: bool,
    /// A file with the filter, read again while the process runs.
    pub level_file: Option<PathBuf>,
    /// Where spans are sent.
    pub export: Option<Export>,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error(transparent)]
    Filter(#[from] BadFilter),
    /// The exporter of spans cannot be used.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The parts that the caller must run and end.
#[derive(Debug)]
pub struct Telemetry {
    /// Follows the file with the level, if there is one.
    pub level: Option<LevelFile>,
    /// Sends spans, if there is a collector.
    pub exporter: Option<Exporter>,
}

/// Starts logging to standard error, and sending spans if the settings say so. The latter needs a runtime.
///
/// # Errors
/// A filter or an endpoint is malformed.
pub fn init(settings: TelemetrySettings) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter::parse(&settings.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if settings.json {
        lines.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed()
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let lines = lines.fmt_fields(EscapedFields::default());
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
