//! Which directories volumes may name as OCI layouts.
//!
//! Every author of a pod can write `image: oci:DIR`, and must not get access to the machine's disk by that. Layouts are
//! therefore only accepted below directories that the operator names; by default there are none.

use std::path::{Component, PathBuf};

use crate::kind::Kind;
use crate::oci::reference::Reference;

/// The directories below which layouts may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layouts(Vec<PathBuf>);

/// The image is a directory that volumes may not name.
#[derive(Debug, thiserror::Error)]
#[error("image {image} is a directory, and volumes may name layouts only {}; put it there, or start the \
         plugin with --layout-dir", .allowed)]
pub struct LayoutError {
    image: String,
    allowed: String,
}

impl LayoutError {
    /// Denied: the operator has not allowed the directory.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}

impl Layouts {
    /// Layouts below these directories.
    pub fn below(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// Checks that volumes may use `image`. Every image from a registry is allowed.
    ///
    /// # Errors
    /// It is a layout outside the allowed directories.
    pub fn check(&self, image: &Reference) -> Result<(), LayoutError> {
        let Reference::Layout(layout) = image else { return Ok(()) };
        let directory = layout.directory();
        // `starts_with` compares components and would accept `/allowed/../etc`.
        let climbs = directory.components().any(|part| part == Component::ParentDir);
        if !climbs && self.0.iter().any(|root| directory.starts_with(root)) {
            return Ok(());
        }
        let names: Vec<_> = self.0.iter().map(|path| path.display().to_string()).collect();
        let allowed = match names.as_slice() {
            [] => "below directories that the operator allows, of which there are none".to_owned(),
            names => format!("below {}", names.join(", ")),
        };
        Err(LayoutError { image: image.to_string(), allowed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_below_what_is_allowed() {
        let check = |layouts: &Layouts, image: &str| layouts.check(&image.parse().unwrap()).is_ok();
        let none = Layouts::default();
        assert!(check(&none, "r.example/a:1"));
        assert!(!check(&none, "oci:/srv/images/a"));
        let some = Layouts::below(vec!["/srv/images".into()]);
        for good in ["oci:/srv/images", "oci:/srv/images/a:1"] {
            assert!(check(&some, good), "{good}");
        }
        for bad in ["oci:/srv", "oci:/srv/images2/a", "oci:srv/images", "oci:/srv/images/../../etc"] {
            assert!(!check(&some, bad), "{bad}");
        }
    }
}
