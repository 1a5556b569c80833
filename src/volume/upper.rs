//! The attributes of volumes that their pod can write to: `writable`, `upperSizeLimit`, `upperMedium`. Pure.
//!
//! What is written lies in an *upper* over the image (overlayfs's word), which belongs to one volume of one pod and goes with
//! it. Only inline volumes promise no more than that.

use std::collections::BTreeMap;

use super::quantity;
use crate::integrity::Integrity;
use crate::kind::Kind;

const WRITABLE: &str = "writable";
const LIMIT: &str = "upperSizeLimit";
const MEDIUM: &str = "upperMedium";
/// These are of the whole volume, never of one of its images.
pub(super) const KEYS: [&str; 3] = [WRITABLE, LIMIT, MEDIUM];
/// Bytes that an upper has at least: less is a mistake in the unit.
const LEAST: u64 = 1 << 20;

/// What a pod may write to its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upper {
    /// Bytes, at least 1 MiB.
    pub bytes: u64,
    /// Whether they lie on the node's disk, or in memory.
    pub on_disk: bool,
}

/// Why a volume cannot be written to as it asks for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UpperError {
    /// The switch is neither on nor off.
    #[error("volume attribute `writable` is {0:?}; it must be true or false")]
    Switch(String),
    /// There is no limit.
    #[error(
        "volume attribute `upperSizeLimit` is missing; a writable volume says how much its pod may write, for example \
         upperSizeLimit: 64Mi"
    )]
    NoLimit,
    /// The limit is none.
    #[error(
        "volume attribute `upperSizeLimit` is {0:?}; it must be an amount such as 64Mi, and 1Mi at least"
    )]
    Limit(String),
    /// The medium is unknown.
    #[error("volume attribute `upperMedium` is {0:?}; it must be Memory or Disk")]
    Medium(String),
    /// The volume is not writable.
    #[error("volume attribute `{0}` is about writable volumes; add writable: \"true\", or remove it")]
    NotWritable(&'static str),
    /// Another attribute cannot be kept where the pod writes.
    #[error("volume attribute `writable` does not go with {with}: {why}; remove one of the two")]
    Contrary {
        /// The other attribute.
        with: &'static str,
        /// Why.
        why: &'static str,
    },
    /// An image of several says it.
    #[error("volume attribute `{0}` is of the volume and not of one of its images; write it beside `images`")]
    OfOneImage(&'static str),
    /// The volume outlives its pod.
    #[error(
        "volume attribute `writable` is for inline volumes only (`csi` among the volumes of a pod), because what is written goes \
         with the pod; PersistentVolumes and claims cannot have it"
    )]
    NotInline,
    /// The pod asks for a read-only volume.
    #[error(
        "the volume is asked for with readOnly: true and writable: \"true\" at once; remove one of the two (a container that must \
         not write can have readOnly: true in its volumeMounts)"
    )]
    ReadOnly,
}

impl UpperError {
    /// Invalid: the volume's author wrote the attributes.
    pub(crate) fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Upper {
    /// The upper that the attributes ask for, if any.
    pub(super) fn parse(given: &BTreeMap<&str, &str>) -> Result<Option<Self>, UpperError> {
        let writable = match given.get(WRITABLE) {
            None | Some(&"false") => false,
            Some(&"true") => true,
            Some(other) => return Err(UpperError::Switch(shortened(other))),
        };
        if !writable {
            let lost = [LIMIT, MEDIUM].into_iter().find(|key| given.contains_key(key));
            return lost.map_or(Ok(None), |key| Err(UpperError::NotWritable(key)));
        }
        let on_disk = match given.get(MEDIUM) {
            None | Some(&"Memory") => false,
            Some(&"Disk") => true,
            Some(other) => return Err(UpperError::Medium(shortened(other))),
        };
        let text = given.get(LIMIT).ok_or(UpperError::NoLimit)?;
        let bytes = quantity::bytes(text).filter(|bytes| *bytes >= LEAST);
        bytes.map(|bytes| Some(Self { bytes, on_disk })).ok_or_else(|| UpperError::Limit(shortened(text)))
    }

    /// As attributes.
    pub(super) fn context(self) -> impl Iterator<Item = (String, String)> {
        let medium = self.on_disk.then(|| (MEDIUM, "Disk".to_owned()));
        let all = [(WRITABLE, "true".to_owned()), (LIMIT, self.bytes.to_string())].into_iter().chain(medium);
        all.map(|(key, text)| (key.to_owned(), text))
    }

    /// Refuses what a volume, or one of its images, cannot promise while its pod writes.
    ///
    /// # Errors
    /// It promises that nothing can be executed, or that every read is checked.
    pub(super) fn check_promises(self, noexec: bool, verify: Option<Integrity>) -> Result<(), UpperError> {
        let contrary = |with, why| Err(UpperError::Contrary { with, why });
        if noexec {
            return contrary("`noexec`", "the pod could write a program and run it");
        }
        if verify == Some(Integrity::Read) {
            return contrary("`verify: read`", "what the pod has changed is checked by nobody");
        }
        Ok(())
    }

    /// Whether a volume can have it that is one of a pod (`inline`), and is asked for read-only or not.
    ///
    /// # Errors
    /// It cannot.
    pub(crate) fn check_use(inline: bool, read_only: bool) -> Result<(), UpperError> {
        match (inline, read_only) {
            (false, _) => Err(UpperError::NotInline),
            (true, true) => Err(UpperError::ReadOnly),
            (true, false) => Ok(()),
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&'static str, &'static str)]) -> Result<Option<Upper>, UpperError> {
        Upper::parse(&pairs.iter().copied().collect())
    }

    #[test]
    fn a_limit_is_demanded_and_means_something() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[("writable", "false")]), Ok(None));
        let mebi = Ok(Some(Upper { bytes: 64 << 20, on_disk: false }));
        assert_eq!(parse(&[("writable", "true"), ("upperSizeLimit", "64Mi")]), mebi);
        assert_eq!(
            parse(&[("writable", "true"), ("upperSizeLimit", "64Mi"), ("upperMedium", "Memory")]),
            mebi
        );
        let on_disk = [("writable", "true"), ("upperSizeLimit", "64Mi"), ("upperMedium", "Disk")];
        let disk = Upper { bytes: 64 << 20, on_disk: true };
        assert_eq!(parse(&on_disk), Ok(Some(disk)));
        let again: Vec<_> = disk.context().collect();
        let given = again.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        assert_eq!(Upper::parse(&given), Ok(Some(disk)), "as attributes, and back");
        for (pairs, word) in [
            (&[("writable", "yes")][..], "true or false"),
            (&[("writable", "true")], "`upperSizeLimit` is missing"),
            (&[("writable", "true"), ("upperSizeLimit", "64")], "1Mi at least"),
            (&[("writable", "true"), ("upperSizeLimit", "much")], "an amount such as"),
            (
                &[("writable", "true"), ("upperSizeLimit", "64Mi"), ("upperMedium", "disk")],
                "it must be Memory or Disk",
            ),
            (&[("upperSizeLimit", "64Mi")], "about writable volumes"),
            (&[("writable", "false"), ("upperMedium", "Memory")], "`upperMedium` is about"),
        ] {
            let error = parse(pairs).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn only_inline_and_not_read_only() {
        assert_eq!(Upper::check_use(true, false), Ok(()));
        assert_eq!(Upper::check_use(true, true), Err(UpperError::ReadOnly));
        for read_only in [false, true] {
            assert_eq!(Upper::check_use(false, read_only), Err(UpperError::NotInline));
        }
    }
}
