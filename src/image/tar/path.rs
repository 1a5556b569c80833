//! Names: from the name in an archive to a path in the tree.

use crate::image::entry::AUFS_LINKS;

/// Longest component of a path on Linux in bytes (NAME_MAX).
const NAME_MAX: usize = 255;

/// Why a name is refused.
pub(super) type NameError = &'static str;

/// What an entry's name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParsedName {
    /// A path relative to the root, in the form of [`crate::image::entry::LayerEntry::path`].
    Path(Box<[u8]>),
    /// The layers below are hidden at this path.
    Whiteout(Box<[u8]>),
    /// The layers below are hidden in this directory.
    Opaque(Box<[u8]>),
    /// Bookkeeping of aufs, which is no part of the image.
    Ignored,
    /// The same, where hard links may lead if it is a regular file ([`AUFS_LINKS`]).
    LinkTarget(Box<[u8]>),
}

/// Brings a name into its clean form: no empty and `.` components, no slash at either end. An absolute name
/// begins at the root of the tree, as for every container runtime. ko and kaniko write such names.
pub(super) fn clean(name: &[u8]) -> Result<Box<[u8]>, NameError> {
    if name.is_empty() {
        return Err("its name is empty");
    }
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err("its name leads out of the tree with .."),
            _ if component.contains(&0) => return Err("its name contains a NUL byte"),
            _ if component.len() > NAME_MAX => return Err("a part of its name exceeds 255 bytes"),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path.into_boxed_slice())
}

/// Cleans a name and recognises whiteouts (OCI image-spec, layer.md, "Whiteouts").
pub(super) fn parse(name: &[u8]) -> Result<ParsedName, NameError> {
    let path = clean(name)?;
    // In any component: aufs also has directories of its own.
    let mut parts = path.split(|byte| *byte == b'/');
    if parts.clone().any(|part| part.starts_with(b".wh..wh.") && part != b".wh..wh..opq") {
        let holds_links = parts.next() == Some(AUFS_LINKS) && parts.next().is_some();
        return Ok(if holds_links { ParsedName::LinkTarget(path) } else { ParsedName::Ignored });
    }
    let (parent, base) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (&[][..], &path[..]),
    };
    if parent.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh.")) {
        return Err("it lies below a whiteout");
    }
    match base.strip_prefix(b".wh.") {
        None => Ok(ParsedName::Path(path)),
        Some(b".wh..opq") => Ok(ParsedName::Opaque(parent.into())),
        Some(b"" | b"." | b"..") => Err("it is a whiteout without a name"),
        Some(hidden) if parent.is_empty() => Ok(ParsedName::Whiteout(hidden.into())),
        Some(hidden) => Ok(ParsedName::Whiteout([parent, b"/", hidden].concat().into_boxed_slice())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        for (name, path) in [
            (&b"a/b"[..], &b"a/b"[..]),
            (b"./a//b/./c/", b"a/b/c"),
            (b"./", b""),
            (b".", b""),
            (b"/", b""),
            (b"//", b""),
            (b"/etc/passwd", b"etc/passwd"),
            (b"//./a", b"a"),
            (b"...", b"..."),
            (b"a\\..\\b", b"a\\..\\b"),
        ] {
            assert_eq!(clean(name).as_deref(), Ok(path), "{}", name.escape_ascii());
        }
        for name in [&b""[..], b"..", b"../a", b"a/../b", b"a/..", b"/..", b"/../x", b"//../x", b"a\0b"] {
            assert!(clean(name).is_err(), "{}", name.escape_ascii());
        }
        assert!(clean(&[b'x'; 255]).is_ok());
        assert!(clean(&[b'x'; 256]).is_err());
    }

    #[test]
    fn whiteouts_are_recognised() {
        let boxed = |bytes: &[u8]| bytes.to_vec().into_boxed_slice();
        for (name, expected) in [
            (&b"./a/.wh.b"[..], ParsedName::Whiteout(boxed(b"a/b"))),
            (b".wh.b", ParsedName::Whiteout(boxed(b"b"))),
            (b"/a/.wh.b", ParsedName::Whiteout(boxed(b"a/b"))),
            (b"/.wh..wh..opq", ParsedName::Opaque(boxed(b""))),
            (b".wh.b/", ParsedName::Whiteout(boxed(b"b"))),
            (b"a/.wh..hidden", ParsedName::Whiteout(boxed(b"a/.hidden"))),
            (b"a/.wh..wh..opq", ParsedName::Opaque(boxed(b"a"))),
            (b".wh..wh..opq", ParsedName::Opaque(boxed(b""))),
            (b"./.wh..wh.plnk/12.34", ParsedName::LinkTarget(boxed(b".wh..wh.plnk/12.34"))),
            (b".wh..wh.plnk/", ParsedName::Ignored),
            (b"a/.wh..wh.plnk/12.34", ParsedName::Ignored),
            (b".wh..wh.orph/1", ParsedName::Ignored),
            (b".wh..wh.aufs", ParsedName::Ignored),
            (b"a/.whx", ParsedName::Path(boxed(b"a/.whx"))),
        ] {
            assert_eq!(parse(name), Ok(expected), "{}", name.escape_ascii());
        }
        for name in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh.b/c", b".wh..wh..opq/c", b"../.wh.a"] {
            assert!(parse(name).is_err(), "{}", name.escape_ascii());
        }
    }
}
