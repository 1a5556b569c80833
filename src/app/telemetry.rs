//! Logging: where lines go and how they look. Metrics and traces come with the services.

use tracing_subscriber::EnvFilter;

/// A log filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level {filter:?} is not understood ({why}); use error, warn, info, debug, trace or module=level"
)]
pub struct BadFilter {
    filter: String,
    why: String,
}

/// Sends the log to standard error from now on: text for people, or one JSON object per line.
///
/// # Errors
/// `filter` is not a level or a list of `module=level`.
pub fn init(filter: &str, json: bool) -> Result<(), BadFilter> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| BadFilter { filter: filter.to_owned(), why: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    // A second call in one process (tests) keeps the first subscriber.
    let _ = if json {
        tracing::subscriber::set_global_default(
            lines.json().flatten_event(true).with_span_list(false).finish(),
        )
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        tracing::subscriber::set_global_default(lines.with_ansi(terminal).with_target(false).finish())
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bad_filter_is_named() {
        let error = super::init("composefs_csi=loud", false).unwrap_err().to_string();
        assert!(error.contains("composefs_csi=loud"), "{error}");
    }
}
