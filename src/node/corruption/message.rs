//! Parses the lines of the kernel log that report corruption.
//!
//! The wording is from fs/verity/verify.c and fs/overlayfs/{namei,util}.c, unchanged from 6.6 to 7.2. An unknown line
//! is ignored. A known line is only a hint: the caller examines the object itself.

/// Corruption that the kernel has reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelReport {
    /// fs-verity: a block of the file with this inode number does not match its hash.
    Block {
        /// Inode number. The message does not name the filesystem reliably.
        inode: u64,
        /// Offset of the block in the file, in bytes.
        position: u64,
    },
    /// overlayfs: a data file has the wrong fs-verity digest or none.
    Seal {
        /// The last 62 digits of the object's name; the message omits the directory.
        name: String,
    },
    /// overlayfs: a data file is missing.
    Lookup,
}

/// Parses a record of `/dev/kmsg` (Documentation/ABI/testing/dev-kmsg): `prefix;message`, then key-value lines that
/// are ignored.
pub fn parse(record: &str) -> Option<KernelReport> {
    let message = record.split_once(';')?.1.lines().next()?;
    if let Some(rest) = message.strip_prefix("fs-verity (") {
        let (place, what) = rest.split_once("): ")?;
        let inode = place.split_once("inode ")?.1.parse().ok()?;
        let position = what.strip_prefix("FILE CORRUPTED! pos=")?.split(',').next()?.parse().ok()?;
        return Some(KernelReport::Block { inode, position });
    }
    let message = message.strip_prefix("overlayfs: ")?;
    if let Some(rest) = message.strip_prefix("lower file '") {
        let (path, what) = rest.split_once('\'')?;
        // The path may begin with the object's directory.
        let name = path.rsplit('/').next()?;
        // Other lower files have other names; only objects have 62 digits.
        let is_object = name.len() == 62 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        return (is_object && what.contains("fs-verity digest"))
            .then(|| KernelReport::Seal { name: name.to_owned() });
    }
    message.contains("lowerdata lookup failed").then_some(KernelReport::Lookup)
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
                Some(KernelReport::Block { inode: 12, position: 28672 }),
            ),
            (
                format!("4,1,2,-;overlayfs: lower file '{name}' has the wrong fs-verity digest\n"),
                Some(KernelReport::Seal { name: name.clone() }),
            ),
            (
                format!("4,1,2,c;overlayfs: lower file 'cd/{name}' has no fs-verity digest"),
                Some(KernelReport::Seal { name: name.clone() }),
            ),
            (
                "4,1,2,-;overlayfs: lazy lowerdata lookup failed (d/file, err=-2)".to_owned(),
                Some(KernelReport::Lookup),
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
