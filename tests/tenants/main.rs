//! Two tenants of one node: what one of them pulled, the other gets only by rights of his own, and no answer tells
//! him whether it is there. The program itself, a real registry with users, and registries that lie. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod crashes;
mod pods;
mod records;
mod strangers;

#[path = "../support"]
mod support {
    pub mod archive;
    pub mod csi;
    pub mod driver;
    pub mod images;
    pub mod impostor;
    pub mod proxy;
    pub mod pulling;
    pub mod registry;
    pub mod tools;
}
