//! The run mode `controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::engine::{self, EngineSettings};
use super::http::{self, Monitored};
use super::prefetch;
use super::supervise::Supervisor;
use super::telemetry::level::LevelFile;
use crate::cluster::Cluster;
use crate::controller::provision::Provisioner;
use crate::controller::service::ControllerService;
use crate::controller::states::States;
use crate::csi::endpoint::Endpoint;
use crate::csi::identity::{DriverName, IdentityService};
use crate::csi::proto::controller_server::ControllerServer;
use crate::csi::proto::identity_server::IdentityServer;
use crate::csi::readiness::Readiness;
use crate::csi::server::{Services, serve};
use crate::metrics::MetricsRegistry;
use crate::volume::layouts::Layouts;

/// How long calls may continue after a signal.
const DRAIN: Duration = Duration::from_secs(10);

/// Settings of the controller.
#[derive(Debug)]
pub struct ControllerSettings {
    /// The state directory and the registries.
    pub engine: EngineSettings,
    /// The socket to listen on.
    pub endpoint: Endpoint,
    /// The driver's name.
    pub driver: DriverName,
    /// Directories below which volumes may name OCI layouts.
    pub layout_dirs: Vec<PathBuf>,
    /// Also take attributes from annotations of claims.
    pub pvc_annotations: bool,
    /// Keep the statuses of ImagePrefetches.
    pub image_prefetch: bool,
    /// The kubeconfig for running outside a pod.
    pub kubeconfig: Option<PathBuf>,
    /// Where to serve metrics and probes.
    pub metrics_listen: Option<SocketAddr>,
    /// Follows the file with the log level.
    pub level: Option<LevelFile>,
}

/// Serves until a termination signal or a failure.
///
/// # Errors
/// The socket, the state directory or the registry settings cannot be used, or serving failed.
pub async fn run(settings: ControllerSettings) -> anyhow::Result<()> {
    let listening = settings.endpoint.listen()?;
    let shutdown = CancellationToken::new();
    let mut provisioner = provisioner(&settings.engine, settings.layout_dirs)?.until(shutdown.clone());
    if settings.pvc_annotations {
        let cluster = Cluster::connect(settings.kubeconfig.as_deref()).await?;
        provisioner = provisioner.with_claims(settings.driver.to_string(), Arc::new(cluster));
    }
    let controller = ControllerService::new(provisioner);
    let (ready, metrics) = (Readiness::default(), MetricsRegistry::new()?);
    // There is nothing to prepare: the state directory was opened above.
    ready.set(true);
    let identity = IdentityService { name: settings.driver, controller: true, ready: ready.clone() };
    let services =
        Services::default().with(IdentityServer::new(identity)).with(ControllerServer::new(controller));
    tracing::info!(endpoint = %settings.endpoint.path().display(), "serving the controller");
    let mut supervisor = Supervisor::new(shutdown.clone());
    if settings.image_prefetch {
        prefetch::keep_statuses(settings.kubeconfig.as_deref(), &mut supervisor, &shutdown).await?;
    }
    metrics.add(services.metrics())?;
    metrics.add(&settings.engine.registry_metrics)?;
    if let Some(address) = settings.metrics_listen {
        let (listener, alive) = (http::listen(address).await?, supervisor.alive());
        supervisor
            .start("metrics", http::serve(listener, Monitored { metrics, alive, ready }, shutdown.clone()));
    }
    if let Some(level) = settings.level {
        supervisor.start("log-level", level.follow(shutdown.clone()));
    }
    supervisor.start("csi", async move { Ok(serve(listening, services, shutdown, DRAIN).await?) });
    supervisor.run(DRAIN + Duration::from_secs(1)).await
}

/// The Controller service with these settings.
///
/// # Errors
/// The state directory or the registry settings cannot be used.
pub(super) fn service(
    engine: &EngineSettings,
    layout_dirs: Vec<PathBuf>,
    shutdown: CancellationToken,
) -> anyhow::Result<ControllerService> {
    Ok(ControllerService::new(provisioner(engine, layout_dirs)?.until(shutdown)))
}

fn provisioner(engine: &EngineSettings, layout_dirs: Vec<PathBuf>) -> anyhow::Result<Provisioner> {
    let sources = engine::sources(engine)?;
    let states = States::open(engine.state_dir.join("controller"))?;
    Ok(Provisioner::new(Arc::new(sources), states, Layouts::below(layout_dirs)))
}
