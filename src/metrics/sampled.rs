//! An amount that is looked up when the metrics are read, for what would otherwise have to be kept up to date by a clock.

use std::fmt;
use std::sync::Arc;

use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::description::Description;
use super::family::{Family, options};

type Look = dyn Fn() -> u64 + Send + Sync;

/// An amount that somebody knows.
#[derive(Clone)]
pub struct Sampled {
    description: Description,
    look: Arc<Look>,
}

impl Sampled {
    /// What `look` says. It is called for every reader of the metrics, and must neither block nor be slow.
    pub fn new(description: Description, look: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { description, look: Arc::new(look) }
    }
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampled").field("description", &self.description).finish_non_exhaustive()
    }
}

impl Family for Sampled {
    fn description(&self) -> Description {
        self.description
    }

    fn collector(&self) -> Result<Box<dyn Collector>, String> {
        let gauge = IntGauge::with_opts(options(self.description)).map_err(|error| error.to_string())?;
        Ok(Box::new(Sampler { gauge, look: Arc::clone(&self.look) }))
    }
}

struct Sampler {
    gauge: IntGauge,
    look: Arc<Look>,
}

impl Collector for Sampler {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(i64::try_from((self.look)()).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::metrics::{Instruments, MetricsRegistry};

    struct Owner(Sampled);

    impl Instruments for Owner {
        fn families(&self) -> Vec<&dyn Family> {
            vec![&self.0]
        }
    }

    #[test]
    fn every_reader_gets_the_amount_of_now() {
        let amount = Arc::new(AtomicU64::new(3));
        let seen = Arc::clone(&amount);
        let owner =
            Owner(Sampled::new(Description::new("now", "A test"), move || seen.load(Ordering::Relaxed)));
        let registry = MetricsRegistry::new().unwrap();
        registry.add(&owner).unwrap();
        assert!(registry.text().contains("composefs_csi_now 3\n"), "{}", registry.text());
        amount.store(7, Ordering::Relaxed);
        assert!(registry.text().contains("composefs_csi_now 7\n"), "{}", registry.text());
    }
}
