//! Types of a volume that node and controller share: its id, its access mode, its content and its secrets.
//!
//! Each type is parsed once, at the entry of a request, and is valid from then on. This module does no I/O and does not
//! know gRPC.

pub(crate) mod access;
pub(crate) mod attributes;
pub(crate) mod content;
pub(crate) mod id;
pub mod layouts;
mod members;
mod quantity;
pub(crate) mod secrets;
pub(crate) mod upper;
