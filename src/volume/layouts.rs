//! Which directories volumes may name as OCI layouts.
//!
//! Whoever may write a pod may write `image: oci:DIR`, and must not read the machine's disk that way. So
//! layouts are only taken from below directories that the operator names, and by default from none.

use std::path::{Component, PathBuf};

use crate::kind::Kind;
use crate::oci::reference::Reference;

/// The directories below which layouts may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layouts(Vec<PathBuf>);

/// A directory that volumes may not name.
#[derive(Debug, thiserror::Error)]
#[error("image {image} is a directory, and volumes may name layouts only {}; put it there, or start the \
         plugin with --layout-dir", .allowed)]
pub struct LayoutError {
    image: String,
    allowed: String,
}

impl LayoutError {
    /// The operator has not allowed it.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}

impl Layouts {
    /// Layouts below these directories.
    pub fn below(directories: Vec<PathBuf>) -> Self {
        Self(directories)
    }

    /// Whether a volume may show `image`: any from a registry may.
    ///
    /// # Errors
    /// It is a layout somewhere else.
    pub fn check(&self, image: &Reference) -> Result<(), LayoutError> {
        let Reference::Layout(layout) = image else { return Ok(()) };
        let directory = layout.directory();
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
