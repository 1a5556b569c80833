//! Counters, gauges and durations, each with its description.
//!
//! A family that the prometheus crate refuses (a malformed name) counts nothing, and its registration fails. A
//! mistake in a description therefore fails the start, not a publish.

use std::marker::PhantomData;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::description::Description;
use super::label::Labels;

/// The prefix of all metric names.
pub(super) const NAMESPACE: &str = "composefs_csi";

/// One metric with all its series.
pub trait Family {
    /// Its name and meaning.
    fn description(&self) -> Description;

    /// Its collector.
    ///
    /// # Errors
    /// The prometheus crate refuses the description.
    fn collector(&self) -> Result<Box<dyn Collector>, String>;
}

/// An owner of metrics.
pub trait Instruments {
    /// All its families.
    fn families(&self) -> Vec<&dyn Family>;
}

pub(super) fn options(description: Description) -> Opts {
    Opts::new(description.name, description.help).namespace(NAMESPACE)
}

macro_rules! family {
    ($family:ident $(<$labels:ident>)?) => {
        impl$(<$labels: Labels>)? Family for $family$(<$labels>)? {
            fn description(&self) -> Description {
                self.description
            }

            fn collector(&self) -> Result<Box<dyn Collector>, String> {
                self.made.clone().map(|made| Box::new(made) as Box<dyn Collector>)
            }
        }
    };
}

/// A count that only grows.
#[derive(Debug, Clone)]
pub struct Counter {
    description: Description,
    made: Result<IntCounter, String>,
}

impl Counter {
    /// A new one at zero.
    pub fn new(description: Description) -> Self {
        let made = IntCounter::with_opts(options(description)).map_err(|error| error.to_string());
        Self { description, made }
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        if let Ok(made) = &self.made {
            made.inc_by(count);
        }
    }
}

/// Counts that only grow, by labels.
#[derive(Debug, Clone)]
pub struct Counters<L> {
    description: Description,
    made: Result<IntCounterVec, String>,
    labels: PhantomData<L>,
}

impl<L: Labels> Counters<L> {
    /// New ones at zero.
    pub fn new(description: Description) -> Self {
        let made = IntCounterVec::new(options(description), &L::names()).map_err(|error| error.to_string());
        let counters = Self { description, made, labels: PhantomData };
        L::known().into_iter().for_each(|labels| counters.add(labels, 0));
        counters
    }

    /// Adds to one series.
    pub fn add(&self, labels: L, count: u64) {
        if let Ok(made) = &self.made {
            made.with_label_values(&labels.values()).inc_by(count);
        }
    }
}

/// An amount that goes up and down.
#[derive(Debug, Clone)]
pub struct Gauge {
    description: Description,
    made: Result<IntGauge, String>,
}

impl Gauge {
    /// A new one at zero.
    pub fn new(description: Description) -> Self {
        let made = IntGauge::with_opts(options(description)).map_err(|error| error.to_string());
        Self { description, made }
    }

    /// Adds `change`, which may be negative.
    pub fn add(&self, change: i64) {
        if let Ok(made) = &self.made {
            made.add(change);
        }
    }

    /// Sets it; larger amounts than `i64::MAX` become that.
    pub fn set(&self, amount: u64) {
        if let Ok(made) = &self.made {
            made.set(i64::try_from(amount).unwrap_or(i64::MAX));
        }
    }

    #[cfg(test)]
    /// Its value.
    #[cfg(test)]
    pub fn get(&self) -> i64 {
        self.made.as_ref().map_or(0, IntGauge::get)
    }
}

/// Amounts that go up and down, by labels.
#[derive(Debug, Clone)]
pub struct Gauges<L> {
    description: Description,
    made: Result<IntGaugeVec, String>,
    labels: PhantomData<L>,
}

impl<L: Labels> Gauges<L> {
    /// New ones at zero.
    pub fn new(description: Description) -> Self {
        let made = IntGaugeVec::new(options(description), &L::names()).map_err(|error| error.to_string());
        let gauges = Self { description, made, labels: PhantomData };
        L::known().into_iter().for_each(|labels| gauges.set(labels, 0));
        gauges
    }

    /// Sets one series; larger amounts than `i64::MAX` become that.
    pub fn set(&self, labels: L, amount: u64) {
        if let Ok(made) = &self.made {
            let amount = i64::try_from(amount).unwrap_or(i64::MAX);
            made.with_label_values(&labels.values()).set(amount);
        }
    }

    #[cfg(test)]
    /// The value of one series.
    #[cfg(test)]
    pub fn get(&self, labels: L) -> i64 {
        self.made.as_ref().map_or(0, |made| made.with_label_values(&labels.values()).get())
    }
}

/// Durations in seconds, by labels.
#[derive(Debug, Clone)]
pub struct Durations<L> {
    description: Description,
    made: Result<HistogramVec, String>,
    labels: PhantomData<L>,
}

impl<L: Labels> Durations<L> {
    /// A new, empty histogram. `buckets` are upper bounds in seconds.
    pub fn new(description: Description, buckets: &[f64]) -> Self {
        let options = HistogramOpts::new(description.name, description.help)
            .namespace(NAMESPACE)
            .buckets(buckets.to_vec());
        let made = HistogramVec::new(options, &L::names()).map_err(|error| error.to_string());
        let durations = Self { description, made, labels: PhantomData };
        if let (Ok(made), Some(first)) = (&durations.made, L::known().first()) {
            // Only one label value is exported from the start: a histogram has a series for each bucket.
            let _ = made.with_label_values(&first.values());
        }
        durations
    }

    /// Adds one observation.
    pub fn observe(&self, labels: L, duration: Duration) {
        if let Ok(made) = &self.made {
            made.with_label_values(&labels.values()).observe(duration.as_secs_f64());
        }
    }

    #[cfg(test)]
    /// The number of observations with these labels.
    #[cfg(test)]
    pub fn count(&self, labels: L) -> u64 {
        self.made.as_ref().map_or(0, |made| made.with_label_values(&labels.values()).get_sample_count())
    }
}

family!(Counter);
family!(Counters<L>);
family!(Gauge);
family!(Gauges<L>);
family!(Durations<L>);
