//! Wiring: settings, telemetry, supervision, the run modes.

pub mod alone;
pub mod controller;
pub mod engine;
pub mod housekeeping;
pub mod http;
mod kernel_log;
pub mod keychain;
pub mod kubernetes;
pub mod node;
pub mod supervise;
pub mod telemetry;
