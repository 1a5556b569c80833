//! Provisioning from a registry whose tag moves.

use super::*;
use crate::kind::Kind;

const PATIENCE: Duration = Duration::from_secs(60);

/// A registry whose tag moves with every call.
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
    let requested = parameters(&[("image", "r.example/a:1"), ("path", "etc")]);
    let first = provisioner(&directory).create("pvc-1", &requested, &none, PATIENCE).await.unwrap();
    let again = provisioner(&directory).create("pvc-1", &requested, &none, PATIENCE).await.unwrap();
    assert_eq!(first, again, "across a restart");
    assert_eq!(first.id.as_str(), "pvc-1");
    assert_eq!(first.context["image"], format!("r.example/a:1@sha256:{}", "01".repeat(32)));
    assert_eq!(first.context["path"], "etc");
    assert!(!first.context.contains_key("pullPolicy"));
    Content::parse(&first.context).unwrap();
}

#[tokio::test]
async fn each_of_several_images_is_pinned() {
    let directory = tempfile::tempdir().unwrap();
    let none = Credentials::none();
    let pinned = format!("r.example/c@sha256:{}", "0".repeat(64));
    let list = format!(
        "[{{image: r.example/a:1, at: a}}, {{image: r.example/b:1, at: b, path: x}}, {{image: '{pinned}', at: c}}]"
    );
    let requested = parameters(&[("images", &list), ("noexec", "true")]);
    let first = provisioner(&directory).create("pvc-1", &requested, &none, PATIENCE).await.unwrap();
    let again = provisioner(&directory).create("pvc-1", &requested, &none, PATIENCE).await.unwrap();
    assert_eq!(first, again, "across a restart");
    let content = Content::parse(&first.context).unwrap().0;
    let digests: Vec<_> = content.images().iter().map(|image| image.image.digest().unwrap()).collect();
    assert_eq!(digests, [1, 2, 0].map(|number| Digest::from_bytes([number; 32])));
    assert!(content.noexec() && content.images()[1].path.ends_with("x"));
    let absent =
        parameters(&[("images", "[{image: r.example/a:1, at: a}, {image: r.example/absent:1, at: b}]")]);
    let error = provisioner(&directory).create("pvc-2", &absent, &none, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("r.example/absent:1"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left of the second");
}

#[tokio::test]
async fn other_parameters_are_a_conflict_until_the_volume_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (provisioner, none) = (provisioner(&directory), Credentials::none());
    let (one, two) = (parameters(&[("image", "r.example/a:1")]), parameters(&[("image", "r.example/a:2")]));
    let made = provisioner.create("pvc-1", &one, &none, PATIENCE).await.unwrap();
    let error = provisioner.create("pvc-1", &two, &none, PATIENCE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(provisioner.context(&made.id).await.unwrap().is_some());
    provisioner.delete(&made.id).await.unwrap();
    provisioner.delete(&made.id).await.unwrap();
    assert!(provisioner.context(&made.id).await.unwrap().is_none());
    provisioner.create("pvc-1", &two, &none, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_resolved_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (provisioner, none) = (provisioner(&directory), Credentials::none());
    for (requested, kind) in [
        (parameters(&[("image", "r.example/absent:1")]), Kind::NotFound),
        (parameters(&[("image", "oci:/etc")]), Kind::Denied),
        (parameters(&[("imgae", "r.example/a:1")]), Kind::Invalid),
    ] {
        let error = provisioner.create("pvc-1", &requested, &none, PATIENCE).await.unwrap_err();
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
