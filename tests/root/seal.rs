//! Sealed images from end to end, by the program itself; and the store's own seals. Needs root.

mod fixture;
mod records;
mod sealed;
