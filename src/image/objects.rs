//! Objects: file contents and composefs images, each named by its fs-verity digest.
//!
//! Invariants:
//! * A name under `objects/` appears only when the file is complete, fs-verity included where the store
//!   requires it. The file is written without a name and linked as the last step. kill -9 leaves nothing.
//! * A name never changes its content. An object that is *found* damaged (wrong size, no fs-verity, another
//!   digest) is replaced by a rename, so that a reader sees the old file or the new one.
//! * An object is safe from a power cut only after a `syncfs` that follows its linking, unless the store
//!   requires fs-verity (FS_IOC_ENABLE_VERITY writes the file out by itself). Until then the name may come
//!   back with the right size and zeros for content. The store therefore keeps a marker while objects are
//!   unsynced. If it finds a marker of another boot, it removes every object that no synced record reaches
//!   ([`Objects::for_each`], [`Objects::remove`]). Records are written after the `syncfs` that covers what
//!   they name, so an object that a record names is complete, and the others are not needed. Nothing has to
//!   be hashed.
//! * Long runs of zeros are holes: they take no space, and neither the content nor its digest differs.
//! * What another store of this machine has may get a name here instead of being written (`adopt`).
//! * Who puts an object can be told to say so first ([`Keep`]): then no sweep removes it before a record names it.
//!
//! Cost: one statx for content that is here already; for new content also open, write, link and close, and
//! two ioctls with fs-verity. New files get their inodes near `objects/` in order of arrival, which keeps
//! a layer together on disk. (ext4 skips inodes that were freed in the last minutes one by one: a pull
//! right after a large sweep spends about 60 us more per object.)

mod adopt;
mod directory;
mod error;
mod examine;
mod keep;
mod metrics;
mod publish;
mod room;
mod sources;
mod sparse_file;
mod strangers;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

pub use directory::Objects;
pub(in crate::image) use directory::Sealing;
pub use error::ObjectError;
pub use examine::Corruption;
pub(in crate::image) use keep::Keep;
pub(in crate::image) use metrics::ObjectMetrics;
pub use publish::Put;
pub(in crate::image) use room::Room;
pub use room::Shortage;
pub(in crate::image) use sources::ObjectSources;
pub(in crate::image) use strangers::Strangers;
pub use writer::ExpectedObject;
