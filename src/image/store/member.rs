//! One of the images that a combined image is made of, and the name that a combined image has by them.

use serde::{Deserialize, Serialize};

use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What the key is a digest of begins with this. No manifest does.
const DOMAIN: &str = "composefs-csi combined image 1\n";

/// One of the images of a combined image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The reference that it was asked for by, for people.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// Its composefs image, whose tree is shown.
    pub image: VerityDigest,
    /// Which of its directories is shown, relative; empty for its root.
    pub path: String,
    /// Where, relative; empty for the root.
    pub at: String,
}

impl Member {
    /// What a combined image of these members is called by in the place of a manifest's digest. It depends on all that
    /// the image's bytes depend on, so a combination that is there is the one that is wanted.
    pub fn key(members: &[Self]) -> Digest {
        let mut text = DOMAIN.to_owned();
        for Self { name: _, manifest, image, path, at } in members {
            // With their lengths, so that no path looks like the next member.
            text += &format!("{manifest} {image} {}:{path} {}:{at}\n", path.len(), at.len());
        }
        Digest::of(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8, path: &str, at: &str) -> Member {
        let (name, manifest) = (format!("r.io/a:{number}"), Digest::from_bytes([number; 32]));
        Member { name, manifest, image: VerityDigest([number; 32]), path: path.to_owned(), at: at.to_owned() }
    }

    #[test]
    fn the_key_depends_on_everything_but_the_name() {
        let (one, two) = (member(1, "", "a"), member(2, "x", "b"));
        let key = |members: &[&Member]| Member::key(&members.iter().copied().cloned().collect::<Vec<_>>());
        let both = key(&[&one, &two]);
        assert_eq!(both, key(&[&Member { name: "other".to_owned(), ..one.clone() }, &two]));
        let variant = Member { image: VerityDigest([9; 32]), ..one.clone() };
        let elsewhere = Member { at: "c".to_owned(), ..one.clone() };
        for other in [key(&[&two, &one]), key(&[&one]), key(&[&variant, &two]), key(&[&elsewhere, &two])] {
            assert_ne!(both, other);
        }
        assert_ne!(key(&[&member(1, "a", "")]), key(&[&member(1, "", "a")]));
        // On disk, so it must stay.
        assert_eq!(
            both.to_string(),
            "sha256:99aad4b01571a8c628461ca9e530ef62ffcb825bf6a3e4c23a4487e3f985a06d"
        );
    }
}
