//! Wiring: settings, telemetry, supervision, the run modes.

pub mod controller;
pub mod credential_providers;
pub mod engine;
pub mod housekeeping;
pub mod http;
pub mod instance_lock;
mod kernel_log;
pub mod kubernetes;
pub mod node;
pub mod supervise;
pub mod telemetry;
mod verity;
