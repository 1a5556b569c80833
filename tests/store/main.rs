//! The store on a real filesystem: what survives kill -9 and power cuts, who may remove what.

#![allow(clippy::unwrap_used, clippy::panic)]

mod collect;
mod crash;
mod damage;
mod fixture;
mod open;
mod sharing;
mod tamper;
