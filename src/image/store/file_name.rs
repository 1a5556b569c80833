//! Files that are named by a digest.

use std::ffi::OsStr;

use crate::oci::digest::Digest;

/// The digest that a file is named by, `suffix` removed; `None` for a file of another sort.
pub(super) fn digest_of(name: &OsStr, suffix: &str) -> Option<Digest> {
    let hex = name.to_str()?.strip_suffix(suffix)?;
    format!("sha256:{hex}").parse().ok()
}

/// Whether a name is a digest and one of these suffixes.
pub(super) fn is_digest(name: &OsStr, suffixes: &[&str]) -> bool {
    suffixes.iter().any(|suffix| digest_of(name, suffix).is_some())
}

/// The name of the JSON file about `digest`.
pub(super) fn json_of(digest: &Digest) -> String {
    format!("{}.json", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_give_digests_back() {
        let digest = Digest::of(b"x");
        assert_eq!(digest_of(json_of(&digest).as_ref(), ".json"), Some(digest));
        assert_eq!(digest_of(digest.hex().as_ref(), ""), Some(digest));
        assert_eq!(digest_of(digest.hex().as_ref(), ".json"), None);
        assert_eq!(digest_of("abc.json".as_ref(), ".json"), None);
    }
}
