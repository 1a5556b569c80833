//! The run modes: turns arguments into settings.

use std::time::Duration;

use super::args::{ControllerArgs, NodeArgs};
use crate::app::controller::{self, ControllerSettings};
use crate::app::credential_providers::CredentialProviderSettings;
use crate::app::engine::EngineSettings;
use crate::app::housekeeping::Schedule;
use crate::app::kubernetes::KubernetesSettings;
use crate::app::node::{self, NodeRun};
use crate::app::scrub::ScrubSchedule;
use crate::app::telemetry::level::LevelFile;
use crate::image::store::gc::Policy;
use crate::node::service::NodeSettings;

/// Images used within this time are only removed if that brings the filesystem below the high mark.
const RECENT: Duration = Duration::from_secs(3600);

/// Runs the node plugin until a termination signal.
///
/// # Errors
/// An argument is malformed, or the plugin failed.
pub(super) async fn node(
    args: &NodeArgs,
    mut engine: EngineSettings,
    level: Option<LevelFile>,
) -> anyhow::Result<()> {
    let policy = policy(args, engine.min_free)?;
    engine.making_room = policy;
    node::run(NodeRun {
        engine,
        endpoint: args.endpoint.parse()?,
        driver: args.driver_name.parse()?,
        node: NodeSettings {
            node_id: args.node_id.clone(),
            kubelet_dir: args.kubelet_dir.clone(),
            pull_wait: Duration::from_secs(args.pull_wait),
        },
        layout_dirs: args.layout_dirs.clone(),
        schedule: Schedule { every: Duration::from_secs(args.gc_interval), policy },
        scrub: ScrubSchedule {
            every: Duration::from_secs(u64::from(args.scrub.scrub_days) * 86_400),
            rate: args.scrub.scrub_rate << 20,
        },
        integrity: args.integrity.into(),
        writable_max_bytes: args.writable_max_size.saturating_mul(1 << 20),
        writable_max_disk_bytes: args.writable_max_disk_size.saturating_mul(1 << 20),
        follow: node::follow_interval(args.follow_interval)?,
        with_controller: args.with_controller,
        credential_providers: CredentialProviderSettings {
            pull_secrets: args.credentials.pull_secrets,
            pull_secrets_namespaces: args.credentials.pull_secrets_namespaces.clone(),
            providers: args
                .credentials
                .credential_provider_config
                .clone()
                .zip(args.credentials.credential_provider_bin_dir.clone()),
        },
        kubernetes: KubernetesSettings {
            kubeconfig: args.kubernetes.kubeconfig.clone(),
            events: args.kubernetes_events,
            startup_taint: args.startup_taint,
            image_prefetch: args.image_prefetch,
        },
        metrics_listen: args.monitoring.metrics_listen,
        level,
    })
    .await
}

/// When images go, and which.
fn policy(args: &NodeArgs, min_free: u8) -> anyhow::Result<Policy> {
    let (high, low) = args.watermarks.percents(min_free)?;
    let min_age = Duration::from_secs(args.gc_min_age);
    let (recent, idle_bytes) = (RECENT.max(min_age), args.watermarks.idle_bytes());
    Ok(Policy::Watermarks { high, low, min_age, recent, idle_bytes })
}

/// Runs the controller until a termination signal.
///
/// # Errors
/// An argument is malformed, or the controller failed.
pub(super) async fn controller(
    args: &ControllerArgs,
    engine: EngineSettings,
    level: Option<LevelFile>,
) -> anyhow::Result<()> {
    controller::run(ControllerSettings {
        engine,
        endpoint: args.endpoint.parse()?,
        driver: args.driver_name.parse()?,
        layout_dirs: args.layout_dirs.clone(),
        pvc_annotations: args.pvc_annotations,
        image_prefetch: args.image_prefetch,
        kubeconfig: args.kubernetes.kubeconfig.clone(),
        metrics_listen: args.monitoring.metrics_listen,
        level,
    })
    .await
}
