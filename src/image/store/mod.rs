//! The object store of a node: what is kept, how it survives a crash, who may remove it.
//!
//! ```text
//! <store>/version                     {"format":1,"algorithm":"sha256"}
//! <store>/lock                        flock: shared by leases, exclusive by the sweep
//! <store>/objects/xx/<62 hex>         file contents and composefs images, by fs-verity digest
//! <store>/layers/<diffid hex>         layer metadata, synced
//! <store>/staging/<boot id>/<diffid hex>   layer metadata of an unfinished pull, valid for this boot only
//! <store>/blobs/<blob hex>            the DiffID that a compressed blob was found to have
//! <store>/images/<manifest hex>.json  one record per image; its mtime is when it was last used
//! <store>/names/<hash>.json           what a reference and platform resolved to
//! <store>/pins/<manifest hex>         images that the operator keeps
//! <store>/volumes/                    volume records, see crate::node::volume
//! ```

mod image;
pub mod objects;

pub use image::{ImageRecord, Integrity};
pub use objects::{ObjectError, Objects};
