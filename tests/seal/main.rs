//! Sealed images from end to end, by the program itself; and the store's own seals. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod fixture;
mod records;
mod sealed;

#[path = "../support"]
mod support {
    pub mod archive;
    pub mod csi;
    pub mod driver;
    pub mod images;
    pub mod registry;
    pub mod tools;
}
