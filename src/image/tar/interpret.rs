//! From a header, and the extended headers before it, to an entry of the layer.

use super::error::{TarError, TarSubject};
use super::extension::Extension;
use super::header::Header;
use super::limits::TarLimits;
use super::path::{self, ParsedName};
use super::pax::Pax;
use crate::image::entry::{EntryKind, Meta, Mtime};
use crate::oci::limits::Cap;

/// One entry of an archive; the content of a file follows by [`super::Archive::data`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// As in [`crate::image::entry::LayerEntry::path`].
    pub path: Box<[u8]>,
    /// As in [`crate::image::entry::LayerEntry::meta`].
    pub meta: Meta,
    /// What stands at the path.
    pub kind: TarKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    /// A regular file of this many bytes, holes included.
    File(u64),
    /// Anything else: never [`EntryKind::Inline`] or [`EntryKind::Object`].
    Other(EntryKind),
}

/// An entry and how its content is laid out in the stream.
pub(super) struct Interpreted {
    /// `None`: the entry is no part of an image. Its content is skipped.
    pub(super) entry: Option<TarEntry>,
    pub(super) subject: TarSubject,
    /// Bytes of content in the stream, without padding.
    pub(super) stored: u64,
}

/// Whether entries of this type have content. POSIX allows it for links, but no image builder writes it.
fn has_content(flag: u8) -> bool {
    !matches!(flag, b'1'..=b'6')
}

fn is_regular(flag: u8) -> bool {
    matches!(flag, 0 | b'0' | b'7' | b'S')
}

/// `D` is GNU's directory in incremental archives. Its content is a list of names.
fn is_directory(flag: u8) -> bool {
    matches!(flag, b'5' | b'D')
}

/// Interprets a header. `at` is its position in the stream, for errors about an entry without a name.
pub(super) fn interpret(
    header: &Header,
    extension: Extension,
    limits: &TarLimits,
    at: u64,
) -> Result<Interpreted, TarError> {
    let pax = &extension.pax;
    // In the order of precedence, which is that of Go's reader. The header of a sparse file has an invented name, and
    // PAX the real one.
    let name = (pax.sparse.name.clone())
        .or(extension.long_name)
        .or_else(|| pax.path.clone())
        .unwrap_or_else(|| header.name());
    let subject =
        if name.is_empty() { TarSubject::Header(at) } else { TarSubject::Entry(name.as_slice().into()) };
    let malformed = |what| TarError::Malformed(subject.clone(), what);
    if name.len() > limits.path {
        return Err(TarError::Limit(subject, Cap::PathBytes.exceeded(name.len(), limits.path)));
    }
    let mut flag = header.type_flag();
    let size = match pax.size {
        Some(size) => size,
        None => {
            u64::try_from(header.size().map_err(malformed)?).map_err(|_| malformed("its size is negative"))?
        }
    };
    // v7 has no type for directories.
    if flag == 0 && name.ends_with(b"/") {
        if size > 0 {
            return Err(malformed("its name is a directory's, but it has content"));
        }
        flag = b'5';
    }
    let stored = if has_content(flag) { size } else { 0 };
    // A volume label, which GNU tar writes for tapes.
    if flag == b'V' {
        return Ok(Interpreted { entry: None, subject, stored });
    }
    let parsed = match &*name {
        // tar-stream and converters from cpio write the root so.
        b"" if is_directory(flag) => ParsedName::Path(Box::default()),
        name => path::parse(name).map_err(|why| TarError::Name(subject.clone(), why))?,
    };
    let (path, hides) = match parsed {
        ParsedName::LinkTarget(path) if is_regular(flag) => (path, None),
        ParsedName::Ignored | ParsedName::LinkTarget(_) => {
            return Ok(Interpreted { entry: None, subject, stored });
        }
        ParsedName::Path(path) => (path, None),
        ParsedName::Whiteout(path) => (path, Some(EntryKind::Whiteout)),
        ParsedName::Opaque(path) => (path, Some(EntryKind::Opaque)),
    };
    // The name alone makes a whiteout, whatever the type.
    if let Some(kind) = hides {
        let entry = Some(TarEntry { path, meta: Meta::default(), kind: TarKind::Other(kind) });
        return Ok(Interpreted { entry, subject, stored });
    }
    // Nothing but a directory can be meant by a name such as `./`.
    if path.is_empty() && is_regular(flag) && size == 0 && name.ends_with(b"/") {
        flag = b'5';
    }
    let link = extension.long_link.or_else(|| pax.link_path.clone());
    let link = link.unwrap_or_else(|| header.link_name().to_vec());
    let kind = kind(header, flag, size, link, pax, &subject, limits)?;
    if path.is_empty() && kind != TarKind::Other(EntryKind::Directory) {
        return Err(TarError::Name(subject, "it is the root of the tree, but no directory"));
    }
    let meta = meta(header, extension.pax).map_err(|what| TarError::Malformed(subject.clone(), what))?;
    Ok(Interpreted { entry: Some(TarEntry { path, meta, kind }), subject, stored })
}

fn kind(
    header: &Header,
    flag: u8,
    size: u64,
    link: Vec<u8>,
    pax: &Pax,
    subject: &TarSubject,
    limits: &TarLimits,
) -> Result<TarKind, TarError> {
    if matches!(flag, b'1' | b'2') {
        if link.len() > limits.path {
            return Err(TarError::Limit(subject.clone(), Cap::PathBytes.exceeded(link.len(), limits.path)));
        }
        if link.is_empty() || link.contains(&0) {
            return Err(TarError::Malformed(subject.clone(), "its target is empty or contains a NUL byte"));
        }
    }
    let device = || {
        let (major, minor) = header.device()?;
        let fit = |pax: Option<u64>, field: i64| {
            // `decimal` allows no PAX number from 2^63 on.
            let number = pax.map_or(field, |number| number as i64);
            u32::try_from(number).map_err(|_| "its device number is out of range")
        };
        Ok((fit(pax.device_major, major)?, fit(pax.device_minor, minor)?))
    };
    let device = || device().map_err(|what| TarError::Malformed(subject.clone(), what));
    Ok(TarKind::Other(match flag {
        _ if is_regular(flag) => return Ok(TarKind::File(size)),
        b'1' => {
            let target = path::clean(&link).map_err(|_| {
                TarError::Name(subject.clone(), "it is a hardlink to a name that leads out of the tree")
            })?;
            EntryKind::Hardlink(target)
        }
        b'2' => EntryKind::Symlink(link.into_boxed_slice()),
        b'3' => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
        b'4' => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
        _ if is_directory(flag) => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        b'M' | b'N' => return Err(TarError::Unsupported(subject.clone(), "part of a multi-volume archive")),
        _ => return Err(TarError::Unsupported(subject.clone(), "an entry of this type")),
    }))
}

fn meta(header: &Header, pax: Pax) -> Result<Meta, &'static str> {
    let id = |pax: Option<i64>, field: Result<i64, &'static str>| match pax {
        Some(id) => owner(id),
        None => owner(field?),
    };
    Ok(Meta {
        // Some writers repeat the file type in the upper bits.
        mode: (header.mode()? & 0o7777) as u32,
        uid: id(pax.uid, header.uid())?,
        gid: id(pax.gid, header.gid())?,
        mtime: match pax.mtime {
            Some(mtime) => mtime,
            None => Mtime { secs: header.mtime()?, nanos: 0 },
        },
        xattrs: pax.xattrs.into_iter().collect(),
    })
}

/// An owner or group as extractors give it to chown(2), which takes 32 bits: a negative number is meant as the unsigned
/// one of the same bits (macOS's `nobody` is -2). Of -1, chown changes nothing, and root is who unpacks.
fn owner(id: i64) -> Result<u32, &'static str> {
    const NO_CHANGE: u32 = u32::MAX;
    let bits = i32::try_from(id).map(|id| id as u32).or_else(|_| u32::try_from(id));
    match bits.map_err(|_| "its owner or group does not fit 32 bits")? {
        NO_CHANGE => Ok(0),
        bits => Ok(bits),
    }
}
