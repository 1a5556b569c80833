//! The run mode `node`. The socket opens first, so that the registrar of the kubelet gets an answer; then come the
//! store and the test of the kernel, then volumes.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::capabilities;
use super::credential_providers::{CredentialProviderSettings, credential_providers};
use super::engine::{Engine, EngineSettings};
use super::housekeeping::{self, House, Schedule};
use super::http::{self, Monitored};
use super::kernel_log;
use super::kubernetes::KubernetesSettings;
use super::plugin_socket::PluginSocket;
use super::pod_users;
use super::prefetch::{self, NodePrefetching};
use super::scrub::{self, ScrubSchedule};
use super::state_directory::{self, Claim};
use super::status::StatusSource;
use super::supervise::Supervisor;
use super::telemetry::level::LevelFile;
use super::verity;
use crate::cluster::Cluster;
use crate::cluster::events::Events;
use crate::csi::endpoint::Endpoint;
use crate::csi::identity::{DriverName, IdentityService};
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
use crate::csi::proto::node_server::NodeServer;
use crate::csi::readiness::Readiness;
use crate::csi::server::{Services, serve};
use crate::integrity::Integrity;
use crate::metrics::MetricsRegistry;
use crate::node::corruption::{CorruptImages, CorruptionWatcher};
use crate::node::credential_providers::CredentialProviders;
use crate::node::mount::{self, KernelMounter, Mounter, Verity};
use crate::node::service::{NodeService, NodeSettings};
use crate::node::state_directory::StateDirectory;
use crate::node::volume::follow::{self, Followed};
use crate::node::volume::guard::Guards;
use crate::node::volume::levels::Levels;
use crate::node::volume::metrics::VolumeMetrics;
use crate::node::volume::pod_events::PodEvents;
use crate::node::volume::record::Records;
use crate::node::volume::writable::WritableLimit;
use crate::node::volume::{Parts, PodDirectories, VolumePulls, Volumes};
use crate::oci::platform::Platform;
use crate::volume::layouts::Layouts;

/// How long calls may continue after a signal. The kubelet kills a pod after 30 seconds.
/// Damaged objects that wait to be examined.
const SUSPECTS: usize = 256;
const DRAIN: Duration = Duration::from_secs(20);

/// Settings of the node plugin.
#[derive(Debug)]
pub struct NodeRun {
    /// The state directory and the registries.
    pub engine: EngineSettings,
    /// The socket to listen on.
    pub endpoint: Endpoint,
    /// The driver's name.
    pub driver: DriverName,
    /// Settings of the Node service.
    pub node: NodeSettings,
    /// Directories below which volumes may name OCI layouts.
    pub layout_dirs: Vec<PathBuf>,
    /// When all objects are read again, and how fast.
    pub scrub: ScrubSchedule,
    /// When housekeeping runs, and which images may be removed.
    pub schedule: Schedule,
    /// The lowest accepted integrity level of every mount.
    pub integrity: Integrity,
    /// The most bytes that a pod may write to a volume; 0: no volume is writable.
    pub writable_max_bytes: u64,
    /// The same on disk.
    pub writable_max_disk_bytes: u64,
    /// How often the tags are asked for that volumes follow; `None` if no volume may follow one.
    pub follow: Option<Duration>,
    /// Also serve the Controller service, for clusters of one node.
    pub with_controller: bool,
    /// Where credentials come from.
    pub credential_providers: CredentialProviderSettings,
    /// Features that use the API server.
    pub kubernetes: KubernetesSettings,
    /// Where to serve metrics and probes.
    pub metrics_listen: Option<SocketAddr>,
    /// Follows the file with the log level.
    pub level: Option<LevelFile>,
}

/// How often tags are asked for, of seconds as an operator says it: 0 for never.
///
/// # Errors
/// It is too often.
pub fn follow_interval(seconds: u64) -> anyhow::Result<Option<Duration>> {
    let every = Duration::from_secs(seconds);
    anyhow::ensure!(
        every.is_zero() || every >= follow::LEAST,
        "--follow-interval is {seconds} s; it must be at least {} s, or 0 where no volume may follow a tag",
        follow::LEAST.as_secs()
    );
    Ok((!every.is_zero()).then_some(every))
}

/// Serves until a termination signal or a failure. Mounts stay.
///
/// # Errors
/// The socket, the store or the registry settings cannot be used, this kernel cannot mount images, or
/// serving failed.
pub async fn run(mut settings: NodeRun) -> anyhow::Result<()> {
    let listening = settings.endpoint.listen()?;
    let claim = state_directory::claim(&settings.engine.state_dir)?;
    let (ready, metrics) = (Readiness::default(), MetricsRegistry::new()?);
    let cluster = settings.kubernetes.cluster(settings.credential_providers.pull_secrets).await?;
    let credential_providers =
        credential_providers(&settings.credential_providers, cluster.as_ref(), &settings.node.node_id)
            .await?;
    let (controller, shutdown) = (settings.with_controller, CancellationToken::new());
    let identity = IdentityService { name: settings.driver.clone(), controller, ready: ready.clone() };
    let node = NodeService::new(settings.node.clone(), ready.clone());
    let mut services =
        Services::default().with(IdentityServer::new(identity)).with(NodeServer::new(node.clone()));
    if controller {
        let service =
            super::controller::service(&settings.engine, settings.layout_dirs.clone(), shutdown.clone())?;
        services = services.with(ControllerServer::new(service));
    }
    metrics.add(services.metrics())?;
    metrics.add(&settings.engine.registry_metrics)?;
    metrics.add(&settings.engine.trust_metrics)?;
    let mut supervisor = Supervisor::new(shutdown.clone());
    // Before the store is opened, which may take long: probes need an answer meanwhile.
    if let Some(address) = settings.metrics_listen {
        let (listener, alive) = (http::listen(address).await?, supervisor.alive());
        let monitored = Monitored { metrics: metrics.clone(), alive, ready: ready.clone() };
        supervisor.start("metrics", http::serve(listener, monitored, shutdown.clone()));
    }
    if let Some(level) = settings.level.take() {
        supervisor.start("log-level", level.follow(shutdown.clone()));
    }
    let identity = (settings.node.node_id.as_str(), &*settings.driver.to_string());
    let (pod_events, node_events) =
        settings.kubernetes.start(cluster.as_ref(), identity, &ready, &mut supervisor, &shutdown);
    let token = shutdown.clone();
    supervisor.start("csi", async move { Ok(serve(listening, services, token, DRAIN).await?) });
    supervisor.start(
        "volumes",
        keep_volumes(
            settings,
            claim,
            node,
            (credential_providers, pod_events, node_events, cluster),
            ready,
            metrics,
            shutdown,
        ),
    );
    // A second more than the calls get, so that the server can close by itself.
    supervisor.run(DRAIN + Duration::from_secs(1)).await
}

/// What volumes get from the cluster, and the cluster itself.
type ForVolumes = (CredentialProviders, PodEvents, Option<Arc<Events>>, Option<Cluster>);

/// Opens the store, tests the kernel and recovers the volumes. Then it runs housekeeping until the shutdown.
async fn keep_volumes(
    settings: NodeRun,
    claim: Claim,
    node: NodeService,
    (credential_providers, pod_events, node_events, cluster): ForVolumes,
    ready: Readiness,
    metrics: MetricsRegistry,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let housekeeping = Arc::new(Notify::new());
    let wanted = Arc::clone(&housekeeping);
    let claimed =
        state_directory::wait(&settings.engine.state_dir, claim, (&node, &ready), &shutdown).await?;
    let Some(state) = claimed.map(Arc::new) else { return Ok(()) };
    let (engine, layouts) = (settings.engine, Layouts::below(settings.layout_dirs));
    let (own_credentials, own_layouts) = (credential_providers.clone(), layouts.clone());
    let (state_dir, min_free) = (engine.state_dir.clone(), engine.min_free);
    let corrupt_images = CorruptImages::default();
    let noted = corrupt_images.clone();
    ready.wait_for("opening the store and testing what the kernel can mount");
    let (least, writable) =
        (settings.integrity, writable(settings.writable_max_bytes, settings.writable_max_disk_bytes));
    let follow = settings.follow;
    let (opened, token) = (Arc::clone(&state), shutdown.clone());
    let kubelet = settings.node.kubelet_dir.clone();
    let (pod_directories, pods) = PodDirectories::new();
    let open = move || {
        // Before anything is mounted where nobody else sees it.
        mount::reaches_kubelet(&kubelet)?;
        let (directories, waiting) = ((opened, kubelet, pod_directories), (wanted, token));
        let levels = (least, writable, follow);
        open(&engine, directories, (credential_providers, pod_events), layouts, waiting, noted, levels)
    };
    let (engine, mounter, volumes) = tokio::task::spawn_blocking(open).await??;
    metrics.add(engine.store.metrics())?;
    metrics.add(engine.images.metrics())?;
    metrics.add(&engine.images.gauges())?;
    metrics.add(volumes.metrics())?;
    metrics.add(volumes.followed())?;
    let prefetching = NodePrefetching {
        cluster,
        kubernetes: settings.kubernetes,
        node: settings.node.node_id.clone(),
        credential_providers: own_credentials,
        layouts: own_layouts,
        policy: settings.schedule.policy,
        housekeeping: Arc::clone(&housekeeping),
        metrics: metrics.clone(),
    };
    let prefetching = prefetch::on_node(prefetching, &engine, shutdown.clone());
    ready.wait_for("putting volume records in order");
    let found = volumes.recover().await.context("volume records could not be put in order")?;
    tracing::info!(
        endpoint = %settings.endpoint.path().display(),
        node = settings.node.node_id,
        integrity = %volumes.integrity(),
        mounted = found.mounted,
        waiting = found.waiting,
        dropped = found.dropped,
        unreadable = found.unreadable,
        "ready; serving volumes"
    );
    let source = StatusSource {
        node: settings.node.node_id.clone(),
        since: Instant::now(),
        ready: ready.clone(),
        volumes: volumes.clone(),
        corrupt_images: corrupt_images.clone(),
        store: Arc::clone(&engine.store),
        puller: Arc::clone(&engine.images),
        policy: settings.schedule.policy,
        min_free,
        asking: Arc::default(),
    };
    let commands = commands(&state_dir, source, shutdown.clone());
    // Only now: a publish during the recovery would meet records that are being repaired.
    node.serve_volumes(volumes.clone());
    ready.check_with(state_directory::check(state));
    ready.set(true);
    let store = Arc::clone(&engine.store);
    let watcher = CorruptionWatcher::new(Arc::clone(&store), corrupt_images);
    let (found, suspects) = mpsc::channel(SUSPECTS);
    let damage = kernel_log::follow(watcher, suspects, shutdown.clone());
    let scrubbing = scrub::keep(Arc::clone(&store), settings.scrub, found, shutdown.clone());
    let sealing = verity::keep(Arc::clone(&store), least == Integrity::Read, shutdown.clone());
    let users = pod_users::follow(pods, volumes.clone(), shutdown.clone());
    let tags = volumes.clone();
    let tags = async move { Ok(tags.follow_tags().await?) };
    let house = House { store, mounter, volumes, node_events };
    let house = housekeeping::keep(house, settings.schedule, housekeeping, shutdown);
    tokio::try_join!(damage, scrubbing, commands, sealing, prefetching, users, tags, house).map(|_| ())
}

/// Listens for the operator's commands, and answers them until the shutdown. Volumes do not depend on it.
fn commands(
    state_dir: &Path,
    source: StatusSource,
    shutdown: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let socket = PluginSocket::bind(state_dir).inspect_err(|error| {
        tracing::warn!(
            "`composefs-csi status` and `pulls` do not work: no socket in {}: {error}",
            state_dir.display()
        );
    });
    async move {
        match socket {
            Ok(socket) => socket.serve(source, shutdown).await,
            Err(_) => Ok(()),
        }
    }
}

fn open(
    settings: &EngineSettings,
    (state, kubelet, pod_directories): (Arc<StateDirectory>, PathBuf, PodDirectories),
    (credential_providers, pod_events): (CredentialProviders, PodEvents),
    layouts: Layouts,
    (housekeeping, shutdown): (Arc<Notify>, CancellationToken),
    corrupt_images: CorruptImages,
    (least, writable, follow): (Integrity, WritableLimit, Option<Duration>),
) -> anyhow::Result<(Engine, Arc<dyn Mounter>, Volumes)> {
    let engine = Engine::open(settings)?;
    let mounter = engine.mounter()?;
    tracing::info!("this node mounts images with {}", mounter.capabilities());
    let levels = levels(&engine, &mounter, least);
    // Fail at the start rather than at every publish. But who does not start cannot enable fs-verity either.
    if !engine.store.lacks_verity() {
        levels.demand(None, None)?;
    }
    let mounter: Arc<dyn Mounter> = Arc::new(mounter);
    let store = engine.store.root();
    state.keep(["", "objects", "volumes"].map(|part| store.join(part)))?;
    let volumes = Volumes::new(Parts {
        images: engine.images.clone(),
        mounter: Arc::clone(&mounter),
        records: Records::open(engine.store.volumes().directory().to_owned())?,
        kubelet,
        boot: boot_id()?,
        levels,
        writable,
        platform: Platform::host(),
        layouts,
        guards: Guards::default(),
        credential_providers,
        pod_events,
        pod_directories,
        pulls: VolumePulls::default(),
        followed: Followed::new(follow),
        state,
        shutdown,
        housekeeping,
        corrupt_images,
        metrics: VolumeMetrics::default(),
    });
    Ok((engine, mounter, volumes))
}

fn levels(engine: &Engine, mounter: &KernelMounter, least: Integrity) -> Levels {
    let capabilities = mounter.capabilities();
    let unusable = match &capabilities.verity {
        Verity::Unusable(why) => Some(why.clone()),
        Verity::Required | Verity::NotInStore => None,
    };
    let no_read = engine.store.filesystem().verity.clone().err().or(unusable);
    Levels { here: capabilities.integrity(), least, no_read }
}

/// What pods may write to a volume, if this process can have it written.
fn writable(bytes: u64, disk_bytes: u64) -> WritableLimit {
    let limit = WritableLimit { bytes, disk_bytes, lacking: capabilities::lacking_to_write() };
    if bytes.max(disk_bytes) > 0 && !limit.lacking.is_empty() {
        tracing::warn!(
            lacking = limit.lacking.join(", "),
            "no volume is writable: the plugin lacks capabilities"
        );
    }
    limit
}

fn boot_id() -> anyhow::Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
