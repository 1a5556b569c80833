//! The metrics that a process exports.

use prometheus::{Encoder as _, TextEncoder};

use super::description::Description;
use super::family::NAMESPACE;
use super::family::{Family, Gauges, Instruments};
use super::label::Label;

/// The exported metrics of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MetricsRegistry(prometheus::Registry);

/// A family that cannot be exported: a mistake in its description.
#[derive(Debug, thiserror::Error)]
#[error("metric {NAMESPACE}_{name} cannot be exported: {why}; this is a defect")]
pub struct MetricsError {
    name: &'static str,
    why: String,
}

impl MetricsRegistry {
    /// A registry with the version of the program.
    ///
    /// # Errors
    /// The description of the version is malformed, which a test excludes.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Self::default();
        registry.add(&Build::default())?;
        Ok(registry)
    }

    /// Exports the metrics of an owner from now on.
    ///
    /// # Errors
    /// A description is malformed, or two families have one name.
    pub fn add(&self, whose: &impl Instruments) -> Result<(), MetricsError> {
        whose.families().into_iter().try_for_each(|family| {
            let failed = |why| MetricsError { name: family.description().name, why };
            let collector = family.collector().map_err(failed)?;
            self.0.register(collector).map_err(|error| failed(error.to_string()))
        })
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail; if encoding fails, the page up to there is still useful.
        let _ = TextEncoder::new().encode(&self.0.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The media type of [`MetricsRegistry::text`].
    pub const MEDIA_TYPE: &'static str = prometheus::TEXT_FORMAT;
}

/// The version of the program.
struct Build(Gauges<Version>);

#[derive(Debug, Clone, Copy)]
struct Version;

impl Label for Version {
    const NAME: &'static str = "version";
    const ALL: &'static [Self] = &[Self];

    fn value(self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}

impl Default for Build {
    fn default() -> Self {
        let gauge =
            Gauges::new(Description::new("build_info", "Always 1; the label says which release runs"));
        gauge.set(Version, 1);
        Self(gauge)
    }
}

impl Instruments for Build {
    fn families(&self) -> Vec<&dyn Family> {
        vec![&self.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counter, Gauge};

    struct Owner(Counter, Gauge);

    impl Instruments for Owner {
        fn families(&self) -> Vec<&dyn Family> {
            vec![&self.0, &self.1]
        }
    }

    fn owner(first: &'static str, second: &'static str) -> Owner {
        Owner(Counter::new(Description::new(first, "First")), Gauge::new(Description::new(second, "Second")))
    }

    #[test]
    fn what_is_registered_is_exported() {
        let (registry, mine) = (MetricsRegistry::new().unwrap(), owner("a_total", "b"));
        registry.add(&mine).unwrap();
        mine.0.add(3);
        mine.1.set(u64::MAX);
        let text = registry.text();
        assert!(text.contains("# HELP composefs_csi_a_total First"), "{text}");
        assert!(text.contains("composefs_csi_a_total 3\n"), "{text}");
        // The text format has floating point numbers, of which this many digits hold.
        assert!(text.contains("composefs_csi_b 9223372036854"), "{text}");
        assert!(text.contains("composefs_csi_build_info{version="), "{text}");
    }

    #[test]
    fn bad_descriptions_are_named() {
        let registry = MetricsRegistry::new().unwrap();
        let error = registry.add(&owner("a-total", "b")).unwrap_err().to_string();
        assert!(error.contains("composefs_csi_a-total"), "{error}");
        assert!(registry.add(&owner("c", "c")).unwrap_err().to_string().contains("composefs_csi_c"));
        // Counting still works.
        owner("a-total", "b").0.add(1);
    }
}
