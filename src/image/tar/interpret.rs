//! From a header and what extended headers said before it to an entry of the layer.

use super::error::{Subject, TarError};
use super::header::Header;
use super::limits::Limits;
use super::path::{self, Place};
use super::pax::Pax;
use crate::image::entry::{EntryKind, Meta, Mtime};
use crate::oci::limits::Cap;

/// One entry of an archive; the content of a file follows by [`super::Archive::data`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// As in [`crate::image::entry::Entry::path`].
    pub path: Box<[u8]>,
    /// As in [`crate::image::entry::Entry::meta`].
    pub meta: Meta,
    /// What it is.
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

/// What extended headers have said of the next entry.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) pax: Pax,
    /// GNU's `L` and `K`.
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

/// An entry and how its content is laid out in the stream.
pub(super) struct Interpreted {
    /// `None`: of no interest to an image; skip its content.
    pub(super) entry: Option<TarEntry>,
    pub(super) subject: Subject,
    /// Bytes of content in the stream, without padding.
    pub(super) stored: u64,
}

/// Which of the type flags have content. POSIX lets links have some; no image builder writes it.
fn has_content(flag: u8) -> bool {
    !matches!(flag, b'1'..=b'6')
}

pub(super) fn interpret(
    header: &Header,
    extension: Extension,
    limits: &Limits,
    at: u64,
) -> Result<Interpreted, TarError> {
    let pax = &extension.pax;
    let name = (pax.sparse.name.clone())
        .or_else(|| pax.path.clone())
        .or(extension.long_name)
        .unwrap_or_else(|| header.name());
    let subject = if name.is_empty() { Subject::Header(at) } else { Subject::Entry(name.as_slice().into()) };
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
    if matches!(flag, 0 | b'0' | b'7') && name.ends_with(b"/") {
        if size > 0 {
            return Err(malformed("its name is a directory's, but it has content"));
        }
        flag = b'5';
    }
    let stored = if has_content(flag) { size } else { 0 };
    if flag == b'V' {
        return Ok(Interpreted { entry: None, subject, stored });
    }
    let place = path::place(&name).map_err(|why| TarError::Name(subject.clone(), why))?;
    let (path, hides) = match place {
        Place::Ignored => return Ok(Interpreted { entry: None, subject, stored }),
        Place::Path(path) => (path, None),
        Place::Whiteout(path) => (path, Some(EntryKind::Whiteout)),
        Place::Opaque(path) => (path, Some(EntryKind::Opaque)),
    };
    if let Some(kind) = hides {
        let entry = Some(TarEntry { path, meta: Meta::default(), kind: TarKind::Other(kind) });
        return Ok(Interpreted { entry, subject, stored });
    }
    let link = pax.link_path.clone().or(extension.long_link).unwrap_or_else(|| header.link_name().to_vec());
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
    subject: &Subject,
    limits: &Limits,
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
            let number = pax.map_or(field, |number| number as i64);
            u32::try_from(number).map_err(|_| "its device number is out of range")
        };
        Ok((fit(pax.device_major, major)?, fit(pax.device_minor, minor)?))
    };
    let device = || device().map_err(|what| TarError::Malformed(subject.clone(), what));
    Ok(TarKind::Other(match flag {
        0 | b'0' | b'7' | b'S' => return Ok(TarKind::File(size)),
        b'1' => {
            let target = path::clean(&link).map_err(|_| {
                TarError::Name(subject.clone(), "it is a hardlink to a name that leads out of the tree")
            })?;
            EntryKind::Hardlink(target)
        }
        b'2' => EntryKind::Symlink(link.into_boxed_slice()),
        b'3' => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
        b'4' => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
        // `D` is GNU's directory with a list of its names as content, in incremental archives.
        b'5' | b'D' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        b'M' | b'N' => return Err(TarError::Unsupported(subject.clone(), "part of a multi-volume archive")),
        _ => return Err(TarError::Unsupported(subject.clone(), "an entry of this type")),
    }))
}

fn meta(header: &Header, pax: Pax) -> Result<Meta, &'static str> {
    let id = |pax: Option<u64>, field: Result<i64, &'static str>| match pax {
        Some(id) => u32::try_from(id).map_err(|_| "its owner or group exceeds 32 bits"),
        None => u32::try_from(field?).map_err(|_| "its owner or group is negative or exceeds 32 bits"),
    };
    Ok(Meta {
        // Some writers put the file type into the upper bits; it is in the type flag already.
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
