//! How an image file is named: `composefs:FILE@DIGEST`.

use std::path::PathBuf;
use std::str::FromStr;

use super::ImageFileError;
use crate::image::verity::VerityDigest;

/// What such a name begins with.
const SCHEME: &str = "composefs:";

/// An image file, and the fs-verity digest (sha256, 4096-byte blocks, no salt) that it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFileName {
    /// The file.
    pub path: PathBuf,
    /// Its digest.
    pub digest: VerityDigest,
}

impl ImageFileName {
    /// Whether `text` is meant to be one.
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with(SCHEME)
    }
}

impl FromStr for ImageFileName {
    type Err = ImageFileError;

    fn from_str(text: &str) -> Result<Self, ImageFileError> {
        let fail = |problem| ImageFileError::Name { text: text.to_owned(), problem };
        let rest = text.strip_prefix(SCHEME).ok_or(fail("does not begin with composefs:"))?;
        // A path may have an @, a digest has none.
        let (path, digest) = rest.rsplit_once('@').ok_or(fail("has no digest"))?;
        if path.is_empty() {
            return Err(fail("names no file"));
        }
        if digest.len() == 128 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fail("has a sha512 digest, and only sha256 is taken"));
        }
        let is_lowercase = !digest.bytes().any(|byte| byte.is_ascii_uppercase());
        let digest = VerityDigest::from_hex(digest).filter(|_| is_lowercase);
        let digest = digest.ok_or(fail("has a digest that is not 64 lowercase hexadecimal digits"))?;
        Ok(Self { path: path.into(), digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_what_follows_the_last_at() {
        let digits = "0123456789abcdef".repeat(4);
        let name: ImageFileName = format!("composefs:/a@b/image.cfs@{digits}").parse().unwrap();
        assert_eq!((name.path, name.digest.hex()), ("/a@b/image.cfs".into(), digits));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let digits = "ab".repeat(32);
        for (text, problem) in [
            ("/image".to_owned(), "does not begin"),
            ("composefs:/image".to_owned(), "no digest"),
            (format!("composefs:@{digits}"), "no file"),
            ("composefs:/image@abc".to_owned(), "not 64"),
            (format!("composefs:/image@{}", "AB".repeat(32)), "not 64"),
            (format!("composefs:/image@sha256:{digits}"), "not 64"),
            (format!("composefs:/image@{digits}{digits}"), "sha512"),
        ] {
            let error = text.parse::<ImageFileName>().unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(&text), "{text}: {error}");
        }
    }
}
