//! Tar archives of a few files, and content for them.

use composefs_csi::oci::digest::Digest;

/// An archive of files, and of directories where a name ends in a slash, all of one day. Directories have a mode that
/// nothing has by default.
pub fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        let directory = name.ends_with('/');
        header.set_mode(if directory { 0o751 } else { 0o644 });
        header.set_entry_type(if directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        archive.append_data(&mut header, name, *content).expect("a member");
    }
    archive.into_inner().expect("the archive")
}

/// `size` bytes that follow from `seed` and that no compression shrinks.
pub fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut digest = Digest::of(seed.as_bytes());
    let mut content = Vec::with_capacity(size + 32);
    while content.len() < size {
        content.extend_from_slice(digest.as_bytes());
        digest = Digest::of(digest.as_bytes());
    }
    content.truncate(size);
    content
}
