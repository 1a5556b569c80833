//! Wiring: settings, telemetry, supervision, the run modes.

pub mod controller;
pub mod credential_providers;
pub mod engine;
pub mod housekeeping;
pub mod http;
mod kernel_log;
pub mod kubernetes;
pub mod node;
mod state_directory;
pub mod supervise;
pub mod telemetry;
