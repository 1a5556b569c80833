//! What a claim itself may say: annotations `<driver>/<attribute>` of a PersistentVolumeClaim stand beside the
//! parameters of its StorageClass.
//!
//! What the StorageClass says stays said: a class that fixes the image is the operator's decision about every
//! claim of the class, and a claim that says something else is refused rather than ignored.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use super::ProvisionError;
use crate::kind::Kind;
use crate::volume::attributes::KEYS;

/// The parameters that external-provisioner adds with `--extra-create-metadata`.
const NAME: &str = "csi.storage.k8s.io/pvc/name";
const NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";

/// Somebody who can read the annotations of claims.
#[async_trait]
pub trait Claims: Send + Sync + std::fmt::Debug {
    /// All annotations of a claim.
    ///
    /// # Errors
    /// They cannot be had.
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, ClaimError>;
}

/// Why a claim's annotations cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the annotations of claim {claim} cannot be read: {why}")]
pub struct ClaimError {
    /// `namespace/name`.
    pub claim: String,
    /// What happened, with the remedy.
    pub why: String,
    /// What sort of failure it is.
    pub kind: Kind,
}

/// Which claim a volume is made for, as the provisioner says.
pub(super) fn of(parameters: &HashMap<String, String>) -> Option<(&str, &str)> {
    let filled = |key| parameters.get(key).map(String::as_str).filter(|text| !text.is_empty());
    filled(NAMESPACE).zip(filled(NAME))
}

/// The class's parameters and the claim's annotations together.
///
/// # Errors
/// Both say something of one attribute, and not the same.
pub(super) fn merged(
    driver: &str,
    parameters: &HashMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<HashMap<String, String>, ProvisionError> {
    let mut all = parameters.clone();
    for key in KEYS {
        let Some(value) = annotations.get(&format!("{driver}/{key}")) else { continue };
        match all.get(key) {
            Some(fixed) if fixed != value => {
                return Err(ProvisionError::Fixed { annotation: format!("{driver}/{key}"), key });
            }
            _ => all.insert(key.to_owned(), value.clone()),
        };
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<M: FromIterator<(String, String)>>(pairs: &[(&str, &str)]) -> M {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_class_decides_and_the_claim_fills_in() {
        let merge =
            |class: &[(&str, &str)], claim: &[(&str, &str)]| merged("d.example", &map(class), &map(claim));
        let all = merge(&[("noexec", "true")], &[("d.example/image", "r.io/a:1"), ("other/image", "r.io/b")]);
        assert_eq!(all.unwrap(), map(&[("noexec", "true"), ("image", "r.io/a:1")]));
        assert!(merge(&[("image", "r.io/a:1")], &[("d.example/image", "r.io/a:1")]).is_ok());
        let error = merge(&[("image", "r.io/a:1")], &[("d.example/image", "r.io/b:1")]).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("d.example/image"), "{error}");
    }

    #[test]
    fn a_claim_has_both_names() {
        assert_eq!(of(&map(&[(NAME, "a"), (NAMESPACE, "b")])), Some(("b", "a")));
        assert_eq!(of(&map(&[(NAME, "a")])), None);
        assert_eq!(of(&map(&[(NAME, "a"), (NAMESPACE, "")])), None);
    }
}
