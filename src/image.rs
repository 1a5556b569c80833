//! From the bytes of layers to a verified composefs image in the node's object store.
//!
//! This room knows nothing of policies, CSI, Kubernetes or mounting. Reading order, from the ground up:
//! * [`verity`] and [`entry`]: the names of objects, and the metadata of a path.
//! * [`objects`]: file contents by their digest.
//! * [`tar`] and [`layer`]: a layer's bytes as a stream, and what is kept of it.
//! * [`chunked`]: a layer's tar from what is here and what is fetched.
//! * [`tree`]: the layers folded into one.
//! * [`composefs`]: the image that the kernel mounts.
//! * [`lazy`]: what is published beside a manifest so that the image starts before its content is here.
//! * [`seal`] and [`access`]: the digest that a manifest carries, and who may have an image.
//! * [`store`]: what the node keeps.

pub mod access;
pub mod chunked;
pub mod composefs;
pub mod entry;
pub mod layer;
pub mod lazy;
pub mod objects;
pub mod seal;
pub mod store;
pub mod tar;
pub mod tree;
pub mod verity;
