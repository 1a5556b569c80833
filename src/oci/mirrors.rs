//! Mirrors: other places that have what a registry has, from the node's own files.
//!
//! containerd's `hosts.toml` directories and containers-registries.conf say where; [`route`] makes an ordered list of
//! places of it, and [`MirroredSource`] asks them, for every document and blob anew. What comes from a mirror is
//! held against its digest like everything else. `docs/mirrors.md` is the operator's page, and
//! `docs/adr/0033-a-mirror-proves-nothing.md` says why the registry itself is asked first.

use std::path::PathBuf;

mod config;
mod document;
mod fallback;
mod host;
mod hosts_toml;
mod memory;
mod order;
mod prefix;
mod preview;
mod registries_conf;
mod route;
mod source;
mod stream;
mod tls;
mod view;

pub(super) use config::MirrorFiles;
pub use preview::places;
pub(super) use route::{Endpoint, Route};
pub(super) use source::MirroredSource;
pub(super) use view::Place;

/// Where the files about mirrors are, and what their word is worth.
#[derive(Debug, Clone, Default)]
pub struct MirrorSettings {
    /// Directories as containerd's `config_path`; the first one with a directory for a registry counts.
    pub hosts_dirs: Vec<PathBuf>,
    /// A containers-registries.conf(5); the files in the directory of that name with `.d` after it are read as well.
    pub registries_conf: Option<PathBuf>,
    /// Who says that a caller may read an image.
    pub proof: AccessProof,
}

/// Who says that a caller may read an image for which there is a mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessProof {
    /// The registry itself, which must confirm each digest to the caller's own credential before a mirror is asked for it.
    #[default]
    Origin,
    /// Any place that has it: what a mirror gives to the node, every caller may read.
    Mirror,
}
