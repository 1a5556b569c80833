//! From a claim's parameters to a volume pinned to a digest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::states::{State, StateError, States};
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::oci::{Credentials, SourceError, Sources};
use crate::volume::attributes::{AttributeError, Attributes};
use crate::volume::id::{VolumeId, VolumeIdError};
use crate::volume::layouts::{LayoutError, Layouts};

pub mod claim;

use claim::{ClaimError, Claims};

/// Somebody who knows what a reference names now.
#[async_trait]
pub trait Resolver: Send + Sync + std::fmt::Debug {
    /// The digest of the manifest or index; an index stays an index, the node chooses its platform.
    async fn resolve(&self, image: &Reference, credentials: &Credentials) -> Result<Digest, SourceError>;
}

#[async_trait]
impl Resolver for Sources {
    async fn resolve(&self, image: &Reference, credentials: &Credentials) -> Result<Digest, SourceError> {
        self.open(image, credentials)?.resolve(&image.version()).await
    }
}

/// Why a volume could not be provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// No usable name.
    #[error("the volume's name cannot be used: {0}")]
    Name(VolumeIdError),
    /// No image.
    #[error(
        "no image is given; set the parameter `image` in the StorageClass, or annotate the claim with \
         <driver>/image where the controller runs with --pvc-annotations"
    )]
    NoImage,
    /// The claim contradicts its class.
    #[error(
        "annotation {annotation:?} of the claim differs from the parameter `{key}` of its StorageClass, which \
         decides; remove the annotation, or use another StorageClass"
    )]
    Fixed {
        /// The annotation.
        annotation: String,
        /// The parameter.
        key: &'static str,
    },
    /// What the claim says is not known.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Malformed parameters.
    #[error("parameters of the StorageClass or annotations of the claim: {0}")]
    Parameters(AttributeError),
    /// A directory that volumes may not name.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The same name with other parameters.
    #[error(
        "volume {0:?} exists with other parameters; delete that claim first, or give the new one another name"
    )]
    Exists(String),
    /// Another call for the same name is at work.
    #[error("volume {0:?} is being created or deleted by another call; try again")]
    Busy(String),
    /// What the image's name means could not be found out.
    #[error("image {image}: {error}{}", whose_secret(error))]
    Source {
        /// The image as the user wrote it.
        image: String,
        /// What the registry said.
        error: SourceError,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Claims name no Secret themselves, so the remedy stands elsewhere than for a pod.
fn whose_secret(error: &SourceError) -> &'static str {
    match error {
        SourceError::Denied { .. } => {
            "; for a claim, that is the Secret which the StorageClass names as csi.storage.k8s.io/provisioner-secret-name"
        }
        _ => "",
    }
}

impl ProvisionError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name(error) => error.kind(),
            Self::NoImage | Self::Fixed { .. } => Kind::Invalid,
            Self::Claim(error) => error.kind,
            Self::Parameters(error) => error.kind(),
            Self::Layout(error) => error.kind(),
            Self::Exists(_) => Kind::Conflict,
            Self::Busy(_) => Kind::Busy,
            Self::Source { error, .. } => error.kind(),
            Self::State(error) => error.kind(),
        }
    }
}

/// A provisioned volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provisioned {
    /// Its id.
    pub id: VolumeId,
    /// What the node is to be told of it.
    pub context: HashMap<String, String>,
}

/// Provisions volumes.
#[derive(Debug)]
pub struct Provisioner {
    resolver: Arc<dyn Resolver>,
    states: States,
    layouts: Layouts,
    claims: Option<(String, Arc<dyn Claims>)>,
    at_work: Mutex<HashSet<VolumeId>>,
}

impl Provisioner {
    /// A provisioner that remembers in `states`.
    pub fn new(resolver: Arc<dyn Resolver>, states: States, layouts: Layouts) -> Self {
        Self { resolver, states, layouts, claims: None, at_work: Mutex::default() }
    }

    /// Takes attributes from annotations `<driver>/<attribute>` of claims as well.
    #[must_use]
    pub fn with_claims(self, driver: String, claims: Arc<dyn Claims>) -> Self {
        Self { claims: Some((driver, claims)), ..self }
    }

    /// The class's parameters with what the claim says.
    async fn attributes(&self, parameters: &HashMap<String, String>) -> Result<Attributes, ProvisionError> {
        let mut all = parameters.clone();
        if let (Some((driver, claims)), Some((namespace, name))) = (&self.claims, claim::of(parameters)) {
            let annotations = claims.annotations(namespace, name).await?;
            all = claim::merged(driver, parameters, &annotations)?;
        }
        match Attributes::parse(&all) {
            Ok((attributes, _)) => Ok(attributes),
            Err(AttributeError::NoImage) => Err(ProvisionError::NoImage),
            Err(error) => Err(ProvisionError::Parameters(error)),
        }
    }

    /// Makes the volume called `name`, or finds it.
    ///
    /// # Errors
    /// The parameters are wrong, other than before, or the image cannot be resolved.
    pub async fn create(
        &self,
        name: &str,
        parameters: &HashMap<String, String>,
        credentials: &Credentials,
    ) -> Result<Provisioned, ProvisionError> {
        let id = id_for(name)?;
        let attributes = self.attributes(parameters).await?;
        self.layouts.check(&attributes.image)?;
        let _turn = self.turn(&id, name)?;
        let asked: BTreeMap<_, _> = attributes.context_with(&attributes.image).into_iter().collect();
        if let Some(known) = self.states.read(&id)? {
            if known.name != name || known.parameters != asked {
                return Err(ProvisionError::Exists(name.to_owned()));
            }
            return Ok(Provisioned { id, context: known.context.into_iter().collect() });
        }
        let digest = match attributes.image.digest() {
            Some(digest) => digest,
            None => self
                .resolver
                .resolve(&attributes.image, credentials)
                .await
                .map_err(|error| ProvisionError::Source { image: attributes.image.to_string(), error })?,
        };
        let context = attributes.context_with(&attributes.image.clone().pinned(digest));
        let state = State::new(name, asked, context.clone().into_iter().collect());
        self.states.write(&id, &state)?;
        tracing::info!(image.digest = %digest, image = %attributes.image, "volume created");
        Ok(Provisioned { id, context })
    }

    /// Forgets a volume; an unknown one is fine.
    ///
    /// # Errors
    /// The state cannot be removed.
    pub fn delete(&self, id: &VolumeId) -> Result<(), ProvisionError> {
        let _turn = self.turn(id, id.as_str())?;
        Ok(self.states.remove(id)?)
    }

    /// What the node is told of a volume; `None` for an unknown one.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn context(&self, id: &VolumeId) -> Result<Option<HashMap<String, String>>, ProvisionError> {
        Ok(self.states.read(id)?.map(|state| state.context.into_iter().collect()))
    }

    fn turn(&self, id: &VolumeId, name: &str) -> Result<Turn<'_>, ProvisionError> {
        if self.at_work().insert(id.clone()) {
            Ok(Turn { provisioner: self, id: id.clone() })
        } else {
            Err(ProvisionError::Busy(name.to_owned()))
        }
    }

    fn at_work(&self) -> MutexGuard<'_, HashSet<VolumeId>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Turn<'a> {
    provisioner: &'a Provisioner,
    id: VolumeId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.provisioner.at_work().remove(&self.id);
    }
}

/// The id of the volume called `name`: the name itself where it is short and plain, as `pvc-<uid>` is, else
/// its hash.
fn id_for(name: &str) -> Result<VolumeId, ProvisionError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text = if name.len() <= 128 && name.chars().all(plain) && !name.starts_with("sha256-") {
        name.to_owned()
    } else {
        format!("sha256-{}", Digest::of(name.as_bytes()).hex())
    };
    text.parse().map_err(ProvisionError::Name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registry whose one tag moves at every question.
    #[derive(Debug, Default)]
    struct Moving(Mutex<u8>);

    #[async_trait]
    impl Resolver for Moving {
        async fn resolve(&self, image: &Reference, _: &Credentials) -> Result<Digest, SourceError> {
            if image.to_string().contains("absent") {
                return Err(SourceError::NotFound { subject: image.to_string() });
            }
            let mut number = self.0.lock().unwrap();
            *number += 1;
            Ok(Digest::from_bytes([*number; 32]))
        }
    }

    fn provisioner(directory: &tempfile::TempDir) -> Provisioner {
        let states = States::open(directory.path().to_owned()).unwrap();
        Provisioner::new(Arc::new(Moving::default()), states, Layouts::default())
    }

    fn parameters(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[tokio::test]
    async fn a_name_keeps_its_digest() {
        let directory = tempfile::tempdir().unwrap();
        let none = Credentials::none();
        let asked = parameters(&[("image", "r.example/a:1"), ("path", "etc")]);
        let first = provisioner(&directory).create("pvc-1", &asked, &none).await.unwrap();
        let again = provisioner(&directory).create("pvc-1", &asked, &none).await.unwrap();
        assert_eq!(first, again, "across a restart");
        assert_eq!(first.id.as_str(), "pvc-1");
        assert_eq!(first.context["image"], format!("r.example/a:1@sha256:{}", "01".repeat(32)));
        assert_eq!(first.context["path"], "etc");
        assert!(!first.context.contains_key("pullPolicy"));
        Attributes::parse(&first.context).unwrap();
    }

    #[tokio::test]
    async fn other_parameters_are_a_conflict_until_the_volume_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let (provisioner, none) = (provisioner(&directory), Credentials::none());
        let (one, two) =
            (parameters(&[("image", "r.example/a:1")]), parameters(&[("image", "r.example/a:2")]));
        let made = provisioner.create("pvc-1", &one, &none).await.unwrap();
        let error = provisioner.create("pvc-1", &two, &none).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(provisioner.context(&made.id).unwrap().is_some());
        provisioner.delete(&made.id).unwrap();
        provisioner.delete(&made.id).unwrap();
        assert!(provisioner.context(&made.id).unwrap().is_none());
        provisioner.create("pvc-1", &two, &none).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_resolved_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (provisioner, none) = (provisioner(&directory), Credentials::none());
        for (asked, kind) in [
            (parameters(&[("image", "r.example/absent:1")]), Kind::NotFound),
            (parameters(&[("image", "oci:/etc")]), Kind::Denied),
            (parameters(&[("imgae", "r.example/a:1")]), Kind::Invalid),
        ] {
            let error = provisioner.create("pvc-1", &asked, &none).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_refusal_says_where_a_claims_secret_is_named() {
        let (subject, host) = ("r.example/a:1".to_owned(), "r.example".to_owned());
        let error = SourceError::Denied { subject, host, credentials_sent: false, detail: String::new() };
        let error = ProvisionError::Source { image: "r.example/a:1".to_owned(), error };
        assert!(error.to_string().contains("provisioner-secret-name"), "{error}");
        assert_eq!(error.kind(), Kind::Denied);
    }

    #[test]
    fn ids_come_from_names() {
        assert_eq!(id_for("pvc-1").unwrap().as_str(), "pvc-1");
        assert_eq!(id_for("").unwrap_err().kind(), Kind::Invalid);
        for odd in ["a/b", "é", &"x".repeat(129), "sha256-0"] {
            assert!(id_for(odd).unwrap().as_str().starts_with("sha256-"), "{odd}");
        }
    }
}
