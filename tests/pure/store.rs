//! The store on a real filesystem: what survives kill -9, power cuts and upgrades, who may remove what.

mod collect;
mod crash;
mod damage;
mod explain;
mod fixture;
mod histories;
mod open;
mod reads;
mod renew;
mod scrub;
mod sharing;
mod strangers;
mod tamper;
mod variants;
