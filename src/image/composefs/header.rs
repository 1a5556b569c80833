//! What a composefs image file says of itself in its first bytes, looked at before a kernel gets a file that this program
//! has not written.
//!
//! The composefs project's writers use a small part of EROFS (composefs.h and erofs_fs.h: plain and inline data, chunks for
//! files that are elsewhere). A file with anything else (compression, further devices, fragments, other blocks) is none
//! of theirs, and would reach code of the kernel that none of theirs does.

/// Bytes from the beginning of the file that [`check_header`] looks at.
pub const HEADER: usize = SUPERBLOCK + 128;

const SUPERBLOCK: usize = 1024;
const COMPOSEFS: u32 = 0xd078_629a;
const EROFS: u32 = 0xe0f5_e1e2;
/// The newest `composefs_version`: composefs-rs's own format.
const NEWEST: u32 = 2;
/// `EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`.
const CHUNKED_FILE: u32 = 4;
/// Of 4096 bytes, as log2.
const BLOCK_BITS: u8 = 12;

/// Why a file is no composefs image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Too short, or begins otherwise.
    #[error("it does not begin as one")]
    Other,
    /// Of a later version.
    #[error("its version {0} is not known here; use a later release")]
    Version(u32),
    /// An EROFS filesystem with something that the composefs project's tools do not write.
    #[error("its filesystem uses {0}, which no composefs tool writes")]
    Unusual(&'static str),
    /// The filesystem does not fit into the file.
    #[error("it is cut off: its filesystem has {blocks} blocks of 4096 bytes, the file {size} bytes")]
    CutOff {
        /// As the filesystem says.
        blocks: u32,
        /// Of the file, in bytes.
        size: u64,
    },
}

/// Checks the first [`HEADER`] bytes of an image file of `size` bytes.
///
/// # Errors
/// What is not as the composefs project's tools write it.
pub fn check_header(bytes: &[u8], size: u64) -> Result<(), HeaderFault> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
        word.map(u32::from_le_bytes).ok_or(HeaderFault::Other)
    };
    let byte = |at: usize| bytes.get(at).copied().ok_or(HeaderFault::Other);
    // `struct lcfs_erofs_header_s`: magic, version of the header, flags, version of the format.
    if word(0)? != COMPOSEFS || word(SUPERBLOCK)? != EROFS || bytes.len() < HEADER {
        return Err(HeaderFault::Other);
    }
    for (at, known) in [(4, 1), (12, NEWEST)] {
        if word(at)? > known {
            return Err(HeaderFault::Version(word(at)?));
        }
    }
    // `struct erofs_super_block`, by offset.
    let at = |offset: usize| SUPERBLOCK + offset;
    let unusual = [
        (byte(at(12))? != BLOCK_BITS, "other blocks than of 4096 bytes"),
        (byte(at(13))? != 0, "a longer superblock"),
        (word(at(80))? & !CHUNKED_FILE != 0, "compression, fragments or other later features"),
        (word(at(84))? & 0xffff_0000 != 0, "further devices"),
        (byte(at(90))? != 0, "other directory blocks"),
        (word(at(96))? != 0 || word(at(100))? != 0, "packed files"),
    ];
    if let Some((_, what)) = unusual.into_iter().find(|(is, _)| *is) {
        return Err(HeaderFault::Unusual(what));
    }
    let blocks = word(at(36))?;
    if u64::from(blocks) << BLOCK_BITS > size {
        return Err(HeaderFault::CutOff { blocks, size });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::composefs::write_image;
    use crate::image::tree::{Builder, Rules};

    fn image() -> Vec<u8> {
        write_image(Builder::new(Rules::Faithful).finish().unwrap()).unwrap().bytes.into_vec()
    }

    #[test]
    fn our_own_images_pass() {
        let image = image();
        assert_eq!(check_header(&image[..HEADER], image.len() as u64), Ok(()));
    }

    #[test]
    fn anything_else_is_named() {
        let (image, size) = (image(), image().len() as u64);
        let changed = |at: usize, value: u8| {
            let mut bytes = image[..HEADER].to_vec();
            bytes[at] = value;
            check_header(&bytes, size).unwrap_err()
        };
        assert_eq!(check_header(&image[..HEADER - 1], size), Err(HeaderFault::Other));
        assert_eq!(check_header(&[], 0), Err(HeaderFault::Other));
        assert_eq!((changed(0, 0), changed(SUPERBLOCK, 0)), (HeaderFault::Other, HeaderFault::Other));
        assert_eq!((changed(4, 2), changed(12, 3)), (HeaderFault::Version(2), HeaderFault::Version(3)));
        // LZ4, ZTAILPACKING and a device table; the bit of chunked files is set by some writers.
        for (at, value) in [(80, 1), (80, 0x10), (80, 8), (12, 9), (13, 1), (86, 1), (90, 1), (97, 1)] {
            let fault = changed(SUPERBLOCK + at, value);
            assert!(matches!(fault, HeaderFault::Unusual(_)), "{at}: {fault}");
        }
        let blocks = u32::try_from(size / 4096).unwrap();
        let cut = check_header(&image[..HEADER], size - 1);
        assert_eq!(cut, Err(HeaderFault::CutOff { blocks, size: size - 1 }));
    }

    #[test]
    fn the_bit_of_chunked_files_is_no_fault() {
        let (mut image, size) = (image(), image().len() as u64);
        image[SUPERBLOCK + 80] |= 4;
        assert_eq!(check_header(&image[..HEADER], size), Ok(()));
    }
}
