//! The file `version`: which format the store has, so that no release misreads it.
//!
//! ```text
//! {"format":1,"algorithm":"sha256"}                      a store without features, as the first release wrote it
//! {"format":1,"algorithm":"sha256","release":"0.3.0",
//!  "compatible":[…],"read_only_compatible":[…],"incompatible":[…]}
//! ```
//! The format says how this file is read, and stays 1. What changes in a store is a *feature*, in one of three lists, as in
//! ext4 (Linux, Documentation/filesystems/ext4/super.rst, "Feature flags"): who does not know a feature may use the store if
//! it is `compatible`, may mount what is there and write nothing if it is `read_only_compatible`, and may not look at it if it
//! is `incompatible`. A store without features has the bytes of the first release. ADR 0052 has the rules.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// The file, in the store's directory.
pub(super) const FILE: &str = "version";
/// The format of the file.
const FORMAT: u32 = 1;
const ALGORITHM: &str = "sha256";
/// This release, for the message of an older one.
const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// More than all features of all times have. A file that is larger is none of ours.
const MAX: usize = 64 << 10;

/// What a store has beyond the first release's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    format: u32,
    algorithm: String,
    /// The release that added the last feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    compatible: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    read_only_compatible: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    incompatible: Vec<String>,
}

/// What the file means for this release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Use {
    /// The store is used, and has this.
    Whole(Version),
    /// It is read, and nothing is written to it, for this reason.
    ReadOnly(String),
}

/// In which list a feature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Who does not know it may use the store.
    #[cfg_attr(not(test), expect(dead_code, reason = "no feature of this sort yet"))]
    Compatible,
    /// Who does not know it may read the store.
    #[cfg_attr(not(test), expect(dead_code, reason = "no feature of this sort yet"))]
    ReadOnlyCompatible,
    /// Who does not know it may do nothing.
    #[cfg_attr(not(test), expect(dead_code, reason = "no feature of this sort yet"))]
    Incompatible,
}

/// A feature that a release knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) sort: Sort,
}

impl Version {
    /// A store without features.
    pub(super) fn first() -> Self {
        Self {
            format: FORMAT,
            algorithm: ALGORITHM.to_owned(),
            release: None,
            compatible: Vec::new(),
            read_only_compatible: Vec::new(),
            incompatible: Vec::new(),
        }
    }

    /// What the file holds.
    pub(super) fn render(&self) -> String {
        serde_json::to_string(self).map(|line| line + "\n").unwrap_or_default()
    }

    /// The same with one more feature.
    pub(super) fn with(&self, feature: Feature) -> Self {
        let mut new = self.clone();
        let list = match feature.sort {
            Sort::Compatible => &mut new.compatible,
            Sort::ReadOnlyCompatible => &mut new.read_only_compatible,
            Sort::Incompatible => &mut new.incompatible,
        };
        list.push(feature.name.to_owned());
        new.release = Some(RELEASE.to_owned());
        new
    }

    /// Whether the store has the feature.
    pub(super) fn has(&self, name: &str) -> bool {
        let all = [&self.compatible, &self.read_only_compatible, &self.incompatible];
        all.into_iter().flatten().any(|feature| feature == name)
    }
}

/// Decides what a release that knows these features does with a store. `store` is for messages.
///
/// # Errors
/// [`StoreError::Version`] for one that a newer release must read, and [`StoreError::Torn`] for no version at all.
pub(super) fn read(store: &Path, bytes: &[u8], known: &[Feature]) -> Result<Use, StoreError> {
    let torn =
        |why: String| StoreError::Torn { path: store.join(FILE), why: format!("not a version: {why}") };
    if bytes.len() > MAX {
        return Err(torn("too large".to_owned()));
    }
    let version: Version = serde_json::from_slice(bytes).map_err(|error| torn(error.to_string()))?;
    let refuse = |found: String| StoreError::Version {
        store: store.to_owned(),
        found,
        known: RELEASE,
        needed: version.release.clone().unwrap_or_else(|| "the one that made it".to_owned()),
    };
    if version.format != FORMAT || version.algorithm != ALGORITHM {
        return Err(refuse(format!("format {} with {}", version.format, version.algorithm)));
    }
    let unknown = |list: &[String]| {
        let is_known = |name: &String| known.iter().any(|feature| feature.name == name);
        let names: Vec<_> =
            list.iter().filter(|name| !is_known(name)).map(|name| format!("{name:?}")).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = unknown(&version.incompatible) {
        return Err(refuse(format!("features that this release does not know ({names})")));
    }
    match unknown(&version.read_only_compatible) {
        Some(names) => {
            let release = version.release.clone().unwrap_or_else(|| "a newer one".to_owned());
            Ok(Use::ReadOnly(format!("it has features that only release {release} may write with ({names})")))
        }
        None => Ok(Use::Whole(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Feature = Feature { name: "a", sort: Sort::Compatible };
    const B: Feature = Feature { name: "b", sort: Sort::ReadOnlyCompatible };
    const C: Feature = Feature { name: "c", sort: Sort::Incompatible };

    fn of(version: &Version, known: &[Feature]) -> Result<Use, StoreError> {
        read(Path::new("/s"), version.render().as_bytes(), known)
    }

    #[test]
    fn a_store_without_features_is_the_first_releases() {
        assert_eq!(Version::first().render(), "{\"format\":1,\"algorithm\":\"sha256\"}\n");
        assert_eq!(of(&Version::first(), &[]).unwrap(), Use::Whole(Version::first()));
        assert_eq!(of(&Version::first(), &[A, B, C]).unwrap(), Use::Whole(Version::first()));
    }

    #[test]
    fn what_is_not_known_is_used_read_or_refused() {
        let all = Version::first().with(A).with(B).with(C);
        assert_eq!(of(&all, &[A, B, C]).unwrap(), Use::Whole(all.clone()));
        assert_eq!(of(&all, &[B, C]).unwrap(), Use::Whole(all.clone()), "compatible");
        assert!(matches!(of(&all, &[A, C]).unwrap(), Use::ReadOnly(why) if why.contains("\"b\"")));
        let refused = of(&all, &[A, B]).unwrap_err();
        assert_eq!(refused.kind(), crate::kind::Kind::Unsupported);
        let said = refused.to_string();
        assert!(said.contains("/s") && said.contains("\"c\"") && said.contains(RELEASE), "{said}");
    }

    #[test]
    fn another_format_is_refused_and_no_version_is_torn() {
        let store = Path::new("/s");
        for newer in [
            r#"{"format":2,"algorithm":"sha256","release":"9.1.0"}"#,
            r#"{"format":1,"algorithm":"sha512","release":"9.1.0","x":1}"#,
        ] {
            let error = read(store, newer.as_bytes(), &[]).unwrap_err();
            assert_eq!(error.kind(), crate::kind::Kind::Unsupported, "{error}");
            assert!(error.to_string().contains("9.1.0"), "{error}");
        }
        for torn in ["", "{", "{\"format\":1}", &"x".repeat(MAX + 1)] {
            assert!(matches!(read(store, torn.as_bytes(), &[]), Err(StoreError::Torn { .. })));
        }
    }
}
