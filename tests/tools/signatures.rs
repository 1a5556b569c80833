//! Signatures that real tools made: Debian's cosign 2.5 and 3.1 sign images in a real registry, with keys and with
//! certificates of a sigstore of our own, and what is collected there is verified.
//!
//! Some combinations do not exist because the tools refuse to make them; the tests hold them to that.

mod certified;
mod keys;
mod published;
mod timing;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::manifest::Descriptor;
use composefs_csi::oci::reference::Reference;
use composefs_csi::oci::{Credentials, Source, SourceSettings, Sources};
use composefs_csi::trust::collect::collect;
use composefs_csi::trust::signature::{
    Authority, Claim, Expectation, Formats, Log, PublicKey, SignatureError, Signed, TrustedRoot, verify,
};
use composefs_csi::trust::{ClaimMemory, Claims, Subject};

use crate::support::images::{Image, Layout};
use crate::support::registry::{self, Options, Registry};
use crate::support::sigstore::{self, Sigstore};

/// A registry and a sigstore of one test.
struct World {
    registry: Registry,
    sigstore: Sigstore,
}

/// An image in a repository of its own.
struct Target {
    /// `HOST/REPOSITORY@DIGEST` of the index.
    index: String,
    /// The same of the platform's manifest.
    manifest: String,
    digests: Vec<Digest>,
    target: Descriptor,
    source: Arc<dyn Source>,
}

impl World {
    fn start() -> Self {
        Self { registry: Registry::start(Options::default()), sigstore: Sigstore::start() }
    }

    fn push(&self, repository: &str) -> Target {
        let mut layout = Layout::new();
        // Every repository's image is another one.
        let image = Image::new(vec![format!("{repository:\0<512}").into_bytes(), vec![0; 1024]]);
        let index = layout.add_index(std::slice::from_ref(&image), "latest");
        let manifest = layout.add_manifest(&image);
        let name = format!("{}/{repository}", self.registry.host());
        let extra = ["--all", "--preserve-digests"];
        self.registry.push(&layout.reference("latest"), &format!("{repository}:latest"), &extra);
        Target {
            index: format!("{name}@{}", index.digest),
            manifest: format!("{name}@{}", manifest.digest),
            digests: vec![manifest.digest, index.digest],
            target: index,
            source: self.source(&format!("{name}:latest")),
        }
    }

    fn source(&self, name: &str) -> Arc<dyn Source> {
        let settings = SourceSettings {
            insecure_registries: BTreeSet::from([self.registry.host()]),
            proxy_from_environment: false,
            ..SourceSettings::default()
        };
        let reference: Reference = name.parse().unwrap();
        Sources::new(&settings).unwrap().open(&reference, &Credentials::none()).unwrap()
    }

    fn root(&self) -> Arc<TrustedRoot> {
        Arc::new(TrustedRoot::parse(&self.sigstore.read("root.json")).unwrap())
    }
}

impl Target {
    fn evidence(&self) -> Claims {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let subject = Subject {
            namespace: None,
            reference: self.index.parse().unwrap(),
            digests: self.digests.clone(),
            target: self.target.clone(),
            sealed: false,
        };
        runtime.block_on(collect(&*self.source, &subject, None, &ClaimMemory::default())).unwrap()
    }
}

fn by_keys(keys: &[PublicKey], log: Log) -> Expectation {
    Expectation {
        authority: Authority::Keys(keys.to_vec()),
        log,
        formats: Formats::ALL,
        predicate_types: Vec::new(),
    }
}

/// A key that has signed nothing.
fn other_key() -> &'static PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    KEY.get_or_init(|| PublicKey::parse(&sigstore::Key::generate("p256").public()).unwrap())
}

/// The one claim of an image.
fn only(evidence: Claims) -> Claim {
    let [claim] =
        <[Claim; 1]>::try_from(evidence.claims).unwrap_or_else(|all| panic!("{} claims", all.len()));
    claim
}

fn refused(result: Result<Signed, SignatureError>, why: &str) {
    match result {
        Ok(signed) => panic!("{signed:?} passes, expected: {why}"),
        Err(error) => assert!(error.to_string().contains(why), "{error}; expected: {why}"),
    }
}
