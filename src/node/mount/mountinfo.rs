//! A parser for /proc/self/mountinfo (proc_pid_mountinfo(5)). Pure; skips malformed lines.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::store_mount::Mount;

/// One line. The kernel may reuse the id after the unmount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: u64,
    /// Mounts below it appear in other mount namespaces too.
    pub(super) shared: bool,
    /// The filesystem is an overlay with `verity=require`.
    pub(super) verity: bool,
    pub(super) mount: Mount,
}

/// The well-formed lines, in order. The kernel writes no others.
pub(super) fn parse(text: &[u8]) -> impl Iterator<Item = Line> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line)
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _parent = fields.next()?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options: Vec<&[u8]> = fields.next()?.split(|byte| *byte == b',').collect();
    // Any number of optional fields ends with a lone hyphen.
    let mut shared = false;
    fields.find(|field| {
        shared |= field.starts_with(b"shared:");
        *field == b"-"
    })?;
    let fs_type = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let of_filesystem: Vec<&[u8]> = fields.next().unwrap_or_default().split(|byte| *byte == b',').collect();
    let has = |option: &[u8]| options.contains(&option);
    Some(Line {
        id,
        shared,
        verity: of_filesystem.contains(&b"verity=require".as_slice()),
        mount: Mount {
            device,
            fs_type,
            source,
            root: PathBuf::from(root),
            point: PathBuf::from(point),
            confined: has(b"ro") && has(b"nosuid") && has(b"nodev"),
            guarded: has(b"nosuid") && has(b"nodev"),
            noexec: has(b"noexec"),
            read_only: of_filesystem.contains(&b"ro".as_slice()),
        },
    })
}

/// Decodes the octal escapes of blanks and backslashes (`\040`).
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = if first == b'\\' { tail.get(..3).and_then(octal) } else { None };
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402\\134x ro,nosuid,nodev,noexec master:1 shared:2 - overlay composefs:aa ro,a=b,verity=require\n\
            37 36 0:21 / /proc rw,relatime - proc  rw\n";
        let lines: Vec<Line> = parse(text).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].id, lines[0].shared, lines[1].shared), (36, true, false));
        let mount = &lines[0].mount;
        assert_eq!((mount.point.as_path(), mount.root.as_path()), ("/mnt 2\\x".as_ref(), "/mnt1".as_ref()));
        assert_eq!((mount.fs_type.to_str(), mount.source.to_str()), (Some("overlay"), Some("composefs:aa")));
        assert!(mount.confined && mount.noexec);
        assert_eq!(mount.device, (98, 0));
        assert_eq!((lines[0].verity, lines[1].verity), (true, false));
        assert_eq!(lines[1].mount.source, "");
        assert!(!lines[1].mount.confined && !lines[1].mount.noexec);
        assert_eq!((lines[0].mount.read_only, lines[1].mount.read_only), (true, false));
    }

    #[test]
    fn escapes_that_are_none_stay() {
        for (field, plain) in [("\\04", "\\04"), ("\\999", "\\999"), ("a\\", "a\\"), ("\\040\\040", "  ")] {
            assert_eq!(unescape(field.as_bytes()), plain);
        }
    }

    #[test]
    fn this_machines_table_parses_in_full() {
        let text = std::fs::read("/proc/self/mountinfo").unwrap();
        assert_eq!(parse(&text).count(), text.iter().filter(|byte| **byte == b'\n').count());
        assert!(parse(&text).any(|line| line.mount.point == std::path::Path::new("/proc")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes).count();
        }

        #[test]
        fn escaping_is_undone(name in "[ -~]{0,20}") {
            let escaped: String = name
                .bytes()
                .map(|byte| match byte {
                    b' ' | b'\\' => format!("\\{byte:03o}"),
                    byte => char::from(byte).to_string(),
                })
                .collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), OsString::from(name));
        }
    }
}
