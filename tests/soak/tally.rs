//! What happened, counted.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// Counters by name.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    /// One more of these.
    pub fn count(&self, what: &str) {
        *self.0.lock().expect("no panic").entry(what.to_owned()).or_default() += 1;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (what, count) in &*self.0.lock().expect("no panic") {
            writeln!(f, "soak: {count:>7} {what}")?;
        }
        Ok(())
    }
}
