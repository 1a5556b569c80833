//! Names: from what an archive says to a place in the tree.

/// Longest name of one component on Linux (NAME_MAX).
const NAME_MAX: usize = 255;

/// Why a name is refused.
pub(super) type Refused = &'static str;

/// Where an entry's name leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path relative to the root, in the form of [`crate::image::entry::Entry::path`].
    Path(Box<[u8]>),
    /// What the layers below have at this path is hidden.
    Whiteout(Box<[u8]>),
    /// What the layers below have in this directory is hidden.
    Opaque(Box<[u8]>),
    /// Bookkeeping of aufs; no part of the image.
    Ignored,
}

/// Brings a name into its clean form: no empty and `.` components, no slash at either end. An absolute name
/// is one from the root of the tree, as for every container runtime: ko and kaniko write such names.
pub(super) fn clean(name: &[u8]) -> Result<Box<[u8]>, Refused> {
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
pub(super) fn place(name: &[u8]) -> Result<Place, Refused> {
    let path = clean(name)?;
    if path.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh..wh.") && part != b".wh..wh..opq") {
        return Ok(Place::Ignored);
    }
    let (parent, base) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (&[][..], &path[..]),
    };
    if parent.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh.")) {
        return Err("it lies below a whiteout");
    }
    match base.strip_prefix(b".wh.") {
        None => Ok(Place::Path(path)),
        Some(b".wh..opq") => Ok(Place::Opaque(parent.into())),
        Some(b"" | b"." | b"..") => Err("it is a whiteout of nothing"),
        Some(hidden) if parent.is_empty() => Ok(Place::Whiteout(hidden.into())),
        Some(hidden) => Ok(Place::Whiteout([parent, b"/", hidden].concat().into_boxed_slice())),
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
            (&b"./a/.wh.b"[..], Place::Whiteout(boxed(b"a/b"))),
            (b".wh.b", Place::Whiteout(boxed(b"b"))),
            (b"/a/.wh.b", Place::Whiteout(boxed(b"a/b"))),
            (b"/.wh..wh..opq", Place::Opaque(boxed(b""))),
            (b".wh.b/", Place::Whiteout(boxed(b"b"))),
            (b"a/.wh..hidden", Place::Whiteout(boxed(b"a/.hidden"))),
            (b"a/.wh..wh..opq", Place::Opaque(boxed(b"a"))),
            (b".wh..wh..opq", Place::Opaque(boxed(b""))),
            (b".wh..wh.plnk/12.34", Place::Ignored),
            (b".wh..wh.aufs", Place::Ignored),
            (b"a/.whx", Place::Path(boxed(b"a/.whx"))),
        ] {
            assert_eq!(place(name), Ok(expected), "{}", name.escape_ascii());
        }
        for name in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh.b/c", b".wh..wh..opq/c", b"../.wh.a"] {
            assert!(place(name).is_err(), "{}", name.escape_ascii());
        }
    }
}
