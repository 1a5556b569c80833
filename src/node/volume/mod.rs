//! Volumes: what is published where, idempotently.
