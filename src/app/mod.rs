//! Wiring: settings, telemetry, supervision, the run modes.

pub mod engine;
pub mod telemetry;
