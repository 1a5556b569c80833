//! Parses log filters.

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

/// Parses a level, or a list of `module=level`.
pub(super) fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
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
