//! The FUSE end of a lazy mount: a filesystem of names without contents, in which looking up an object takes until the object
//! has come to the store.
//!
//! It is the last data layer of an image's overlay, behind the store's objects. An open of an object that is here never
//! reaches it. One of a missing object becomes a LOOKUP here; the answer comes once the sealed object lies in the store, and
//! is ESTALE: the kernel repeats the whole open once, and finds the object in the layer before. Nothing is ever opened or
//! read here, so what a reader gets is always the store's object, which the kernel compares with the image's digest. Where
//! nobody answers any more, what is missing gives ENOTCONN, and everything else goes on
//! ([0056](../../docs/adr/0056-an-open-that-waits.md)).
//!
//! [`wire`] is the protocol, [`names`] what may be looked up, [`waiting`] decides who is answered what and when; these three
//! do no I/O. [`server`] is the thread that reads and answers, [`signals`] tells whether a waiting reader is being killed.

mod names;
mod server;
mod signals;
mod waiting;
mod wire;

use std::fmt;

pub use names::ObjectNames;
pub use server::{Bell, Connection, Server};

use crate::image::verity::VerityDigest;

/// Where missing objects come from, as the server of one image sees it. Called on the server's thread: neither may wait
/// for a network, because no other reader of the image is answered meanwhile.
pub trait Supply: Send + Sync + fmt::Debug {
    /// Whether a reader finds a file by the object's name in the store. Whether it is the object, the kernel checks.
    fn is_here(&self, object: &VerityDigest) -> bool;

    /// Somebody waits for the object. [`Bell::arrived`] says that it has come, and [`Bell::fail`] that none will.
    fn want(&self, object: &VerityDigest);
}
