//! The basis of every run mode and command: the store, the puller and the mount table of one state directory. Opening
//! it is safe while a plugin uses the same directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::key_place;
use crate::image::access::AccessRule;
use crate::image::store::{Mounted, NodeKey, Options, Store};
use crate::integrity::Integrity;
use crate::node::mount::{self, KernelMounter, SelinuxContext};
use crate::oci::mirrors::MirrorSettings;
use crate::oci::{Pace, RegistryMetrics, SourceSettings, Sources};
use crate::pull::{PullLimits, Puller};
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
    /// Registries to contact over plain http.
    pub insecure_registries: Vec<String>,
    /// A file that lists more of them.
    pub insecure_file: Option<PathBuf>,
    /// PEM files with certificate authorities, in addition to the system's.
    pub registry_cas: Vec<PathBuf>,
    /// Where the files about mirrors are.
    pub mirrors: MirrorSettings,
    /// The directory of credential helpers.
    pub credential_helpers: Option<PathBuf>,
    /// Which images may be mounted.
    pub trust: TrustSettings,
    /// Who may use the images in the store.
    pub access: AccessRule,
    /// Refuse images whose manifest does not carry their composefs digest.
    pub require_digest: bool,
    /// How mounts are labelled for SELinux.
    pub selinux_context: SelinuxContext,
    /// Objects of an image that are looked up when it is first mounted.
    pub stat_ahead: usize,
    /// The lowest transfer rate of a registry, in bytes per second; 0 for no limit.
    pub min_transfer_rate: u64,
    /// Percent of the store's filesystem that pulls leave free.
    pub min_free: u8,
    /// The longest time that a layer may take; zero for no limit.
    pub max_layer_time: Duration,
    /// How long what was received of a layer is kept that nobody goes on with; zero for not at all.
    pub keep_partial: Duration,
    /// Directories of other stores on this machine, whose objects are taken instead of being written.
    pub object_sources: Vec<PathBuf>,
    /// Limits on concurrency and on images.
    pub limits: PullLimits,
    /// Counts requests to registries.
    pub registry_metrics: RegistryMetrics,
    /// Counts decisions about images.
    pub trust_metrics: TrustMetrics,
}

/// An open state directory.
#[derive(Debug)]
pub struct Engine {
    /// Its store.
    pub store: Arc<Store>,
    /// Makes images available in it.
    pub images: Arc<Puller>,
    /// Limits on concurrency and on images.
    pub limits: PullLimits,
    state_dir: PathBuf,
    selinux_context: SelinuxContext,
    stat_ahead: usize,
}

impl Engine {
    /// Opens the state directory, and creates it if necessary. Blocking.
    pub fn open(settings: &EngineSettings) -> anyhow::Result<Self> {
        let key = settings.node_key.clone().unwrap_or_else(|| settings.state_dir.join("node.key"));
        let directory = settings.state_dir.join("store");
        // A key inside the store would be copied and restored with the records that it authenticates.
        anyhow::ensure!(
            !key.starts_with(&directory),
            "--node-key {} is inside the store, whose records it protects; choose another place",
            key.display()
        );
        let node_key = NodeKey::load_or_create(&key)?;
        let (min_free, keep_partial) = (settings.min_free, settings.keep_partial);
        let object_sources = settings.object_sources.clone();
        let options = Options { min_free, keep_partial, object_sources, ..Options::new(node_key) };
        let store = Arc::new(Store::open(&directory, options)?);
        key_place::report(&key, &directory);
        let (sources, rule) = (sources(settings)?, settings.access.clone());
        let policy = Arc::new(SignaturePolicyEngine::new(&settings.trust, settings.trust_metrics.clone()));
        let images = Arc::new(
            Puller::new(Arc::clone(&store), sources, policy, rule, settings.limits)
                .with_digest_required(settings.require_digest),
        );
        let (limits, state_dir) = (settings.limits, settings.state_dir.clone());
        let (selinux_context, stat_ahead) = (settings.selinux_context.clone(), settings.stat_ahead);
        Ok(Self { store, images, limits, state_dir, selinux_context, stat_ahead })
    }

    /// The composefs images that are mounted in this mount namespace, by whether from this store.
    pub fn mounted_images(&self) -> anyhow::Result<Mounted> {
        Ok(mount::mounted_images(self.store.root())?)
    }

    /// Tests what the kernel can do, and returns a mounter for this store.
    pub fn mounter(&self) -> anyhow::Result<KernelMounter> {
        let sealed = self.store.integrity() == Integrity::Read;
        let (store, state) = (self.store.root(), &self.state_dir);
        let mounter = KernelMounter::start_labelled(store, state, sealed, &self.selinux_context)?;
        Ok(mounter.with_stat_ahead(self.stat_ahead))
    }
}

/// Makes the sources of images. The only I/O is reading the files that the settings name.
///
/// # Errors
/// One of the files cannot be used.
pub fn sources(settings: &EngineSettings) -> anyhow::Result<Sources> {
    // All other settings have the same values in every mode.
    Ok(Sources::new(&SourceSettings {
        insecure_registries: settings.insecure_registries.iter().cloned().collect(),
        insecure_file: settings.insecure_file.clone(),
        ca_files: settings.registry_cas.clone(),
        auth_file: settings.auth_file.clone(),
        mirrors: settings.mirrors.clone(),
        credential_helpers: settings.credential_helpers.clone(),
        metrics: settings.registry_metrics.clone(),
        pace: Pace {
            minimum: settings.min_transfer_rate,
            longest: settings.max_layer_time,
            ..Pace::default()
        },
        limits: settings.limits.image,
        ..SourceSettings::default()
    })?)
}
