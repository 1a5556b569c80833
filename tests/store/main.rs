//! The store on a real filesystem: what survives kill -9, power cuts and upgrades, who may remove what.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod collect;
mod crash;
mod damage;
mod fixture;
mod histories;
#[path = "../support/images.rs"]
mod images;
mod open;
#[path = "../support/pulling.rs"]
mod pulling;
#[path = "../support/registry.rs"]
mod registry;
mod renew;
mod sharing;
mod tamper;
#[path = "../support/tools.rs"]
mod tools;
