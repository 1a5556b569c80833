//! Wiring: settings, telemetry, supervision, the run modes.

mod capabilities;
mod connections;
pub mod controller;
pub mod credential_providers;
pub mod engine;
pub mod housekeeping;
pub mod http;
mod kernel_log;
mod key_place;
pub mod kubernetes;
pub mod lazy;
pub mod node;
pub mod plugin_socket;
mod pod_users;
pub mod prefetch;
mod room;
pub mod scrub;
mod state_directory;
pub mod status;
pub mod supervise;
pub mod telemetry;
mod verity;
