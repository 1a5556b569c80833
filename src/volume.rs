//! What a volume is, whoever serves it: its id, how it may be used, what its attributes say.
//!
//! Shared by the node and the controller. Everything here is a type that is parsed once at the door and is
//! right from then on; nothing here does I/O or knows of gRPC.

pub mod access;
pub mod attributes;
pub mod id;
pub mod layouts;
pub mod secrets;
