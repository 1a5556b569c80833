//! What every run mode and command stands on: the store, the puller and the mount table of one state
//! directory. Opening it is safe beside a running plugin.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::image::access::Rule;
use crate::image::pull::{Limits, Puller};
use crate::image::store::{NodeKey, Options, Store};
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::{self, KernelMounter, SelinuxContext};
use crate::oci::{Credentials, Pace, RegistryMetrics, SourceSettings, Sources};
use crate::trust::metrics::TrustMetrics;
use crate::trust::{SignaturePolicyEngine, TrustSettings};

/// Settings shared by the run modes and the commands.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The node key's file; `node.key` in the state directory by default.
    pub node_key: Option<PathBuf>,
    /// A docker config.json with credentials.
    pub auth_file: Option<PathBuf>,
    /// Registries spoken to over plain http.
    pub insecure_registries: Vec<String>,
    /// PEM files with certificate authorities besides the system's.
    pub registry_cas: Vec<PathBuf>,
    /// Which images may be mounted.
    pub trust: TrustSettings,
    /// Who may have what is in the store.
    pub access: Rule,
    /// Refuse images whose manifest does not carry their composefs digest.
    pub require_digest: bool,
    /// How mounts are labelled for SELinux.
    pub selinux_context: SelinuxContext,
    /// Bytes per second that a registry must send at least; 0 for no bound.
    pub min_transfer_rate: u64,
    /// How much is done at once, and what is taken.
    pub limits: Limits,
    /// Where requests to registries are counted.
    pub registry_metrics: RegistryMetrics,
    /// Where judgements are counted.
    pub trust_metrics: TrustMetrics,
}

/// An open state directory.
#[derive(Debug)]
pub struct Engine {
    /// Its store.
    pub store: Arc<Store>,
    /// Makes images available in it.
    pub images: Arc<Puller>,
    /// How much is done at once, and what is taken.
    pub limits: Limits,
    /// Says which of them may be mounted.
    pub engine: Arc<SignaturePolicyEngine>,
    state_dir: PathBuf,
    selinux_context: SelinuxContext,
}

impl Engine {
    /// Opens the state directory, making it if need be. Blocking.
    pub fn open(settings: &EngineSettings) -> anyhow::Result<Self> {
        let key = settings.node_key.clone().unwrap_or_else(|| settings.state_dir.join("node.key"));
        let directory = settings.state_dir.join("store");
        anyhow::ensure!(
            !key.starts_with(&directory),
            "--node-key {} is inside the store, whose records it is to protect; choose another place",
            key.display()
        );
        let key = NodeKey::load_or_create(&key)?;
        let store = Arc::new(Store::open(&directory, Options::new(key))?);
        let (sources, rule) = (sources(settings)?, settings.access.clone());
        let engine = Arc::new(SignaturePolicyEngine::new(&settings.trust, settings.trust_metrics.clone()));
        let images = Arc::new(
            Puller::new(Arc::clone(&store), sources, engine.clone(), rule, settings.limits)
                .with_digest_required(settings.require_digest),
        );
        let (limits, state_dir) = (settings.limits, settings.state_dir.clone());
        let selinux_context = settings.selinux_context.clone();
        Ok(Self { store, images, engine, limits, state_dir, selinux_context })
    }

    /// The composefs images that are mounted anywhere in this mount namespace.
    pub fn mounted_images(&self) -> anyhow::Result<BTreeSet<VerityDigest>> {
        Ok(mount::mounted_images()?)
    }

    /// Tests what the kernel can do, and mounts from this store from then on.
    pub fn mounter(&self) -> anyhow::Result<KernelMounter> {
        let sealed = self.store.integrity() == Integrity::Read;
        let (store, state) = (self.store.root(), &self.state_dir);
        Ok(KernelMounter::start_labelled(store, state, sealed, &self.selinux_context)?)
    }
}

/// Opens registries and layouts by the same settings. Does no I/O but reading the files that they name.
///
/// # Errors
/// The auth file or a certificate authority cannot be read.
pub fn sources(settings: &EngineSettings) -> anyhow::Result<Sources> {
    let default_credentials = settings.auth_file.as_deref().map(read_credentials).transpose()?;
    Ok(Sources::new(&SourceSettings {
        insecure_registries: settings.insecure_registries.iter().cloned().collect(),
        ca_files: settings.registry_cas.clone(),
        default_credentials: default_credentials.unwrap_or_else(Credentials::none),
        metrics: settings.registry_metrics.clone(),
        pace: Pace { minimum: settings.min_transfer_rate, ..Pace::default() },
        limits: settings.limits.image,
        ..SourceSettings::default()
    })?)
}

fn read_credentials(file: &Path) -> anyhow::Result<Credentials> {
    // Neither the file's content nor a parser's excerpt of it may reach the message.
    let bytes =
        std::fs::read(file).with_context(|| format!("cannot read the auth file {}", file.display()))?;
    Credentials::parse(&bytes).with_context(|| format!("in the auth file {}", file.display()))
}
