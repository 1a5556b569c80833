//! Attributes from a claim: annotations `<driver>/<attribute>` of a PersistentVolumeClaim complete the parameters of its
//! StorageClass.
//!
//! The StorageClass has priority: a class that sets the image is the operator's decision for every claim of the class. A
//! claim that contradicts it is refused, not ignored.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use crate::kind::Kind;
use crate::volume::attributes::KEYS;

/// The parameters that external-provisioner adds with `--extra-create-metadata`.
const NAME: &str = "csi.storage.k8s.io/pvc/name";
const NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";

/// Reads the annotations of claims.
#[async_trait]
pub(crate) trait ClaimAnnotations: Send + Sync + std::fmt::Debug {
    /// All annotations of a claim.
    ///
    /// # Errors
    /// They cannot be read.
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, ClaimError>;
}

/// Why a claim's annotations cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the annotations of claim {claim} cannot be read: {why}")]
pub(crate) struct ClaimError {
    /// `namespace/name`.
    pub claim: String,
    /// What happened, with the remedy.
    pub why: String,
    /// What sort of failure this is.
    pub kind: Kind,
}

/// An annotation of a claim that its class contradicts.
#[derive(Debug, thiserror::Error)]
#[error(
    "annotation {annotation:?} of the claim differs from the parameter `{key}` of its StorageClass, which \
     decides; remove the annotation, or use another StorageClass"
)]
pub(crate) struct Contradiction {
    /// The annotation.
    pub annotation: String,
    /// The parameter of the class.
    pub key: &'static str,
}

impl Contradiction {
    /// Invalid: the claim's author wrote the annotation.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// Namespace and name of the claim for which a volume is created, as the external-provisioner says.
pub(super) fn of(parameters: &HashMap<String, String>) -> Option<(&str, &str)> {
    let filled = |key| parameters.get(key).map(String::as_str).filter(|text| !text.is_empty());
    filled(NAMESPACE).zip(filled(NAME))
}

/// The class's parameters together with the claim's annotations.
///
/// # Errors
/// Both set an attribute, to different values.
pub(super) fn merged(
    driver: &str,
    parameters: &HashMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<HashMap<String, String>, Contradiction> {
    let mut all = parameters.clone();
    for key in KEYS {
        let Some(value) = annotations.get(&format!("{driver}/{key}")) else { continue };
        match all.get(key) {
            Some(fixed) if fixed != value => {
                return Err(Contradiction { annotation: format!("{driver}/{key}"), key });
            }
            // Not set by the class, or set to the same value.
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
