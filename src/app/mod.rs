//! Wiring: settings, telemetry, supervision, the run modes.
