//! Archives from arbitrary bytes, and what an archive holds, read without a store.

use composefs_csi::image::entry::{EntryKind, INLINE_MAX, LayerEntry, Meta, is_clean};
use composefs_csi::image::tar::{Archive, Piece, TarEntry, TarError, TarKind, TarLimits};
use composefs_csi::image::verity::VerityHasher;
use std::io::{BufRead, BufReader};

const BLOCK: usize = 512;

/// Rights the checksums of everything that looks like a header: mutation alone would hardly ever get past
/// them. Blocks without the magic stay as they are, so that wrong checksums are seen as well.
pub fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block.get(257..262) == Some(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// Limits small enough to be met by the fuzzer, for every second input.
pub fn limits(choice: u8) -> TarLimits {
    if choice & 1 == 0 {
        return TarLimits { bytes: 1 << 30, bytes_with_holes: 1 << 30, ..TarLimits::default() };
    }
    TarLimits {
        path: 40,
        xattrs: 64,
        header: 1024,
        segments: 3,
        headers: 20,
        bytes: 5000,
        bytes_with_holes: 5000,
        ..TarLimits::default()
    }
}

/// Reads an archive to its end through a buffer of `buffer` bytes, and holds what it says against the limits.
pub fn read(tar: &[u8], limits: TarLimits, buffer: usize) -> Result<Vec<LayerEntry>, TarError> {
    let mut archive = Archive::new(BufReader::with_capacity(buffer, tar), limits);
    let (mut entries, mut content, mut files) = (Vec::new(), Vec::new(), 0u64);
    while let Some(TarEntry { path, meta, kind }) = archive.next_entry()? {
        assert!(is_clean(&path), "{:?}", path.escape_ascii().to_string());
        assert!(path.len() <= limits.path);
        assert!(meta.mode <= 0o7777 && meta.mtime.nanos < 1_000_000_000);
        assert!(meta.xattrs.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let attributes: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(attributes <= limits.xattrs);
        let kind = match kind {
            TarKind::Other(kind) => {
                match &kind {
                    EntryKind::Inline(_) | EntryKind::Object(..) => panic!("a file that is none"),
                    EntryKind::Hardlink(target) => assert!(is_clean(target)),
                    EntryKind::Symlink(target) => {
                        assert!(target.len() <= limits.path && !target.contains(&0))
                    }
                    _ => {}
                }
                assert!(archive.data()?.is_none(), "content of something that is no file");
                kind
            }
            TarKind::File(size) => {
                files += size;
                assert!(files <= limits.bytes);
                file(&mut archive, size, &mut content)?
            }
        };
        // What means nothing is not recorded.
        let bare = matches!(kind, EntryKind::Whiteout | EntryKind::Opaque | EntryKind::Hardlink(_));
        let meta = if bare { Meta::default() } else { meta };
        entries.push(LayerEntry { path, meta, kind });
        assert!(entries.len() as u64 <= limits.headers);
    }
    Ok(entries)
}

fn file<R: BufRead>(
    archive: &mut Archive<R>,
    size: u64,
    content: &mut Vec<u8>,
) -> Result<EntryKind, TarError> {
    let mut hasher = VerityHasher::default();
    let mut read = 0;
    content.clear();
    while let Some(piece) = archive.data()? {
        match piece {
            Piece::Data(bytes) => {
                assert!(!bytes.is_empty());
                hasher.update(bytes);
                read += bytes.len() as u64;
                content.extend_from_slice(&bytes[..bytes.len().min(INLINE_MAX + 1)]);
            }
            Piece::Zeros(count) => {
                read += count;
                content.resize(content.len() + count.min(INLINE_MAX as u64 + 1) as usize, 0);
                // Hashing a gigabyte of holes would tell nothing new.
                hasher.update(&vec![0; count.min(100_000) as usize]);
            }
        }
    }
    assert_eq!(read, size, "bytes of the file");
    Ok(match size as usize {
        ..=INLINE_MAX => EntryKind::Inline(content.as_slice().into()),
        _ => EntryKind::Object(hasher.finish(), size),
    })
}
