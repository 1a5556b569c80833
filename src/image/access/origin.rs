//! Where an image comes from, for the right to read it.

use std::fmt;

use crate::oci::reference::Reference;

/// A repository in its registry, or an OCI layout directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    host: String,
    name: String,
    /// The name without what tells the places apart.
    image: String,
    open: bool,
}

impl Origin {
    /// The origin that a reference names.
    pub fn of(reference: &Reference) -> Self {
        let name = reference.name();
        match reference {
            Reference::Registry(registry) => {
                Self { host: registry.host().to_owned(), image: name.clone(), name, open: true }
            }
            // Pods may read layouts directory by directory, so what is known about one says nothing about another.
            Reference::Layout(_) => Self { host: name.clone(), image: name.clone(), name, open: false },
        }
    }

    /// The mirrors of a registry, where their word counts instead of the registry's own. They are a place of their own:
    /// what they gave to somebody says nothing about the registry, and what they give without credentials is not public.
    #[must_use]
    pub fn by_mirrors(self) -> Self {
        let mark = |name: String| format!("{name} by mirrors");
        Self { host: mark(self.host), name: mark(self.name), image: self.image, open: false }
    }

    /// The registry's host, or the layout's directory: a credential means the same everywhere below it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `HOST/REPOSITORY` or `oci:DIR`, as the operator names images.
    pub(super) fn image(&self) -> &str {
        &self.image
    }

    /// `HOST/REPOSITORY` or `oci:DIR`; of mirrors with a mark.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is reached over the network.
    pub(crate) fn is_remote(&self) -> bool {
        !self.image.starts_with("oci:")
    }

    /// Whether what this origin gives without credentials counts as public.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_and_layouts_are_told_apart() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        let (a, b) = (origin("r.io:5000/team/a:1"), origin("r.io:5000/team/b:1"));
        assert_eq!((a.host(), a.name(), a.is_open()), ("r.io:5000", "r.io:5000/team/a", true));
        assert_eq!(a.host(), b.host());
        assert_ne!(a, b);
        let by_mirrors = a.clone().by_mirrors();
        assert_ne!((a.host(), a.name()), (by_mirrors.host(), by_mirrors.name()));
        assert_eq!((by_mirrors.image(), by_mirrors.is_open()), ("r.io:5000/team/a", false));
        let (c, d) = (origin("oci:/srv/a:1"), origin("oci:/srv/b"));
        assert_eq!((c.host(), c.is_open()), ("oci:/srv/a", false));
        assert_ne!(c.host(), d.host());
        assert!(a.is_remote() && by_mirrors.is_remote() && !c.is_remote());
    }
}
