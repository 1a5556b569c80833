//! From an image reference to a verified composefs image in the node's object store.
//!
//! This part knows nothing of CSI, Kubernetes or mounting. Reading order:
//! [`crate::oci`] (where an image comes from, and what its manifest says), [`tar`] and [`layer`] (its bytes as a
//! stream), [`objects`] and [`store`] (what is kept), [`tree`] (the layers folded into one), [`seal`] (the digest that a
//! manifest carries), [`composefs`] (the image that the kernel mounts), [`crate::trust`] (whether it may be mounted),
//! [`access`] (who may have it) and [`pull`] (all of it together).

pub mod access;
pub mod composefs;
pub mod entry;
pub mod layer;
pub mod objects;
pub mod pull;
pub mod seal;
pub mod store;
pub mod tar;
pub mod tree;
pub mod verity;
