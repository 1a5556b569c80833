//! Whether the two tables of a layer describe the same archive.

use std::io::Read;

use super::doubt::Doubt;
use super::tar_split::{Segment, TarSplit};
use super::toc::{Toc, TocFile};

/// What only sparse files in PAX headers have (GNU tar, "PAX headers"): their content in the archive is not the file's.
const SPARSE: &[u8] = b"GNU.sparse.";
const BLOCK: usize = 512;

/// Reads the tar-split to its end and compares its files with those of the TOC, before anything is fetched for it.
/// Returns the bytes of the archive.
///
/// # Errors
/// They differ, or the archive has what the format does not describe faithfully.
pub fn compare<R: Read>(split: &mut TarSplit<R>, toc: &Toc) -> Result<u64, Doubt> {
    let (mut files, mut bytes) = (toc.files.iter(), 0_u64);
    while let Some(segment) = split.next_segment()? {
        match segment {
            Segment::Raw(raw) => {
                if is_sparse(&raw) {
                    return Err(Doubt::Unfit("sparse files"));
                }
                bytes = bytes.saturating_add(raw.len() as u64);
            }
            Segment::File { name, size } => {
                match files.next() {
                    Some(file) if *file.name == *name && file.size == size => {}
                    Some(file) => {
                        let TocFile { name: listed, size: bytes, .. } = file;
                        return Err(Doubt::Disagree(format!(
                            "{name:?} of {size} bytes stands where {listed:?} of {bytes} bytes is listed"
                        )));
                    }
                    None => return Err(Doubt::Disagree(format!("{name:?} is not listed"))),
                }
                bytes = bytes.saturating_add(size);
            }
        }
    }
    match files.next() {
        Some(file) => Err(Doubt::Disagree(format!("{:?} is not in the archive", file.name))),
        None => Ok(bytes),
    }
}

/// Whether raw bytes have a header of a sparse file. They may begin with the padding of the file before, but headers
/// are whole blocks up to the segment's end.
fn is_sparse(raw: &[u8]) -> bool {
    let headers = raw.len() % BLOCK..raw.len();
    let blocks = raw.get(headers).unwrap_or_default().chunks_exact(BLOCK);
    let old_gnu = |block: &[u8]| block.get(156) == Some(&b'S') && block.get(257..262) == Some(b"ustar");
    blocks.into_iter().any(old_gnu) || raw.windows(SPARSE.len()).any(|window| window == SPARSE)
}
