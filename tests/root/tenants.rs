//! Two tenants of one node: what one of them pulled, the other gets only by rights of their own, and no answer tells
//! them whether it is there. The program itself, a real registry with users, and registries that lie. Needs root.

mod crashes;
mod guesses;
pub mod pods;
mod progress;
mod records;
mod strangers;
