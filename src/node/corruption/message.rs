//! What the kernel says when it meets damage: lines of the kernel log, parsed.
//!
//! The wording is fs/verity/verify.c's and fs/overlayfs/{namei,util}.c's, the same from 6.6 to 7.2. A line that is not
//! understood is nobody's; a line that is, is only a hint: whoever gets it looks at the object itself.

/// Something that the kernel met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// fs-verity: a block of the file with this inode number is not what it was.
    Block {
        /// Inode number on the filesystem that the message does not name reliably.
        inode: u64,
        /// Where in the file, in bytes.
        position: u64,
    },
    /// overlayfs: a data file is sealed wrongly or not at all.
    Seal {
        /// The last 62 digits of the object's name; the directory is not said.
        name: String,
    },
    /// overlayfs: a data file cannot be found.
    Lookup,
}

/// Parses a record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): `prefix;message`, then lines of
/// key and value that are not looked at.
pub fn parse(record: &str) -> Option<Complaint> {
    let message = record.split_once(';')?.1.lines().next()?;
    if let Some(rest) = message.strip_prefix("fs-verity (") {
        let (place, what) = rest.split_once("): ")?;
        let inode = place.split_once("inode ")?.1.parse().ok()?;
        let position = what.strip_prefix("FILE CORRUPTED! pos=")?.split(',').next()?.parse().ok()?;
        return Some(Complaint::Block { inode, position });
    }
    let message = message.strip_prefix("overlayfs: ")?;
    if let Some(rest) = message.strip_prefix("lower file '") {
        let (path, what) = rest.split_once('\'')?;
        let name = path.rsplit('/').next()?;
        let is_object = name.len() == 62 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        return (is_object && what.contains("fs-verity digest"))
            .then(|| Complaint::Seal { name: name.to_owned() });
    }
    message.contains("lowerdata lookup failed").then_some(Complaint::Lookup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words() {
        let name = "ab".repeat(31);
        for (line, expected) in [
            (
                "3,812,9321,-;fs-verity (vda, inode 12): FILE CORRUPTED! pos=28672, level=-1, want_hash=sha256:0, \
                 real_hash=sha256:1\n SUBSYSTEM=x\n"
                    .to_owned(),
                Some(Complaint::Block { inode: 12, position: 28672 }),
            ),
            (
                format!("4,1,2,-;overlayfs: lower file '{name}' has the wrong fs-verity digest\n"),
                Some(Complaint::Seal { name: name.clone() }),
            ),
            (
                format!("4,1,2,c;overlayfs: lower file 'cd/{name}' has no fs-verity digest"),
                Some(Complaint::Seal { name: name.clone() }),
            ),
            (
                "4,1,2,-;overlayfs: lazy lowerdata lookup failed (d/file, err=-2)".to_owned(),
                Some(Complaint::Lookup),
            ),
            ("4,1,2,-;overlayfs: lower file 'etc' has no fs-verity digest".to_owned(), None),
            ("4,1,2,-;fs-verity (vda, inode x): FILE CORRUPTED! pos=1".to_owned(), None),
            ("4,1,2,-;fs-verity: initialized".to_owned(), None),
            ("fs-verity (vda, inode 1): FILE CORRUPTED! pos=1".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&line), expected, "{line}");
        }
    }
}
