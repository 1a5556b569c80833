//! The command line: the run modes, and the operator's commands, which need neither Kubernetes nor a running plugin.

mod access;
mod args;
mod completions;
mod failure;
mod fsck;
mod image_file;
mod images;
mod inspect;
mod limits;
mod mounts;
mod output;
mod parts;
mod pins;
mod policy;
mod progress;
mod prune;
mod pulls;
mod push;
mod refresh;
mod scrub;
mod seal;
mod serve;
mod status;
mod store;
mod stored;
mod transfer;
mod trust;
mod verify;
mod why;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use self::args::{
    Cli, Command, LogFormat, MountArgs, PARALLEL_LAYERS, PolicyCommand, PullsCommand, StoreCommand,
};
use self::images::Wanted;
use self::stored::Stored;
use crate::app::engine::{Engine, EngineSettings};
use crate::app::telemetry::level::LevelFile;
use crate::app::telemetry::otlp::Export;
use crate::app::telemetry::{self, Telemetry, TelemetrySettings};
use crate::oci::RegistryMetrics;
use crate::pull::PullLimits;
use crate::trust::metrics::TrustMetrics;

/// Runs the program and returns its exit code: 0 success, 1 failure, 2 wrong usage.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error),
    };
    let output = cli.output;
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, output),
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    if let Command::Completions { shell } = &cli.command {
        return completions::print(*shell);
    }
    let serving = matches!(cli.command, Command::Node(_) | Command::Controller(_));
    let level = cli.log_level.as_deref().unwrap_or(if serving {
        "info"
    } else {
        "warn,composefs_csi::progress=info"
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The exporter of spans starts tasks of the runtime.
    let entered = runtime.enter();
    let Telemetry { level, exporter } = telemetry::init(cli.telemetry(level))?;
    drop(entered);
    let outcome = runtime.block_on(dispatch(cli, level));
    // Also after a failure: its spans are the most wanted.
    if let Some(exporter) = exporter {
        exporter.end();
    }
    outcome
}

impl Cli {
    fn telemetry(&self, filter: &str) -> TelemetrySettings {
        let (monitoring, service, node) = match &self.command {
            Command::Node(args) => (Some(&args.monitoring), "composefs-csi-node", Some(args.node_id.clone())),
            Command::Controller(args) => (Some(&args.monitoring), "composefs-csi-controller", None),
            _ => (None, "composefs-csi", None),
        };
        let endpoint = monitoring.and_then(|args| args.otlp_endpoint.clone());
        TelemetrySettings {
            filter: filter.to_owned(),
            json: self.log_format == LogFormat::Json,
            level_file: monitoring.and_then(|args| args.log_level_file.clone()),
            export: endpoint.map(|endpoint| Export { endpoint, service, node }),
        }
    }

    fn engine(&self, parallel_layers: usize) -> EngineSettings {
        EngineSettings {
            state_dir: self.state_dir.clone(),
            node_key: self.node_key.clone(),
            require_digest: matches!(&self.command, Command::Node(args) if args.require_composefs_digest),
            auth_file: self.registry.auth_file.clone(),
            insecure_registries: self.registry.insecure_registries.clone(),
            insecure_file: self.registry.insecure_registries_file.clone(),
            registry_cas: self.registry.registry_cas.clone(),
            mirrors: self.registry.mirrors.settings(),
            credential_helpers: self.registry.mirrors.credential_helper_dir.clone(),
            trust: self.trust.settings(),
            access: self.access.rule(),
            selinux_context: self.selinux_context.clone(),
            stat_ahead: if let Command::Node(args) = &self.command { args.stat_ahead } else { 0 },
            min_transfer_rate: self.limits.min_transfer_rate,
            min_free: self.limits.min_free,
            max_layer_time: Duration::from_secs(self.limits.max_layer_time),
            keep_partial: self.transfer.keep_partial(),
            object_sources: self.transfer.object_sources.clone(),
            limits: PullLimits { ranges: self.transfer.ranges(), ..self.limits.limits(parallel_layers) },
            registry_metrics: RegistryMetrics::default(),
            trust_metrics: TrustMetrics::default(),
        }
    }
}

async fn dispatch(cli: Cli, level: Option<LevelFile>) -> anyhow::Result<()> {
    let output = cli.output;
    let engine = || Engine::open(&cli.engine(PARALLEL_LAYERS));
    match &cli.command {
        Command::Node(args) => {
            let mut engine = cli.engine(args.parallel_layers);
            engine.limits.grace = Duration::from_secs(args.pull_grace);
            serve::node(args, engine, level).await
        }
        Command::Controller(args) => serve::controller(args, cli.engine(PARALLEL_LAYERS), level).await,
        Command::Pull { image, platform, choice, pull_policy } => {
            let wanted = Wanted::parse(image, platform.as_deref())?.choosing(choice.parse()?);
            images::pull(&engine()?, wanted, (*pull_policy).into(), output).await
        }
        // Needs no store: a machine without Kubernetes has none.
        Command::Mount(args) if args.is_of_file() => image_file::mount(args, &cli, output),
        Command::Mount(args) => {
            let MountArgs { image, target, path, noexec, platform, choice, pull_policy, .. } = args;
            let wanted = Wanted::parse(image, platform.as_deref())?.choosing(choice.parse()?);
            let options = mounts::Options { path: path.clone(), noexec: *noexec, least: args.least()? };
            mounts::mount(&engine()?, wanted, (*pull_policy).into(), target, options, output).await
        }
        Command::Unmount { target } => match image_file::unmount(target, output)? {
            image_file::Unmounted::Yes => Ok(()),
            image_file::Unmounted::IsNone => mounts::unmount(&engine()?, target, output),
        },
        Command::Inspect { image, remote: true, platform, choice, .. } => {
            let wanted = Wanted::parse(image, platform.as_deref())?.choosing(choice.parse()?);
            inspect::remote(&cli.engine(PARALLEL_LAYERS), wanted, output).await
        }
        Command::Inspect { image, files, platform, choice, .. } => {
            let stored = Stored::parse(image, platform.as_deref())?.choosing(choice.parse()?)?;
            inspect::inspect(&engine()?, stored, *files, output).await
        }
        Command::Ls => store::ls(&engine()?, output),
        Command::Digest { image, rules, platform } => {
            images::digest(&engine()?, Wanted::parse(image, platform.as_deref())?, *rules, output).await
        }
        Command::Seal { image, rules, tag, force, lazy, first } => {
            let (rules, tag, first) = ((*rules).into(), tag.clone(), first.clone());
            let options = seal::Options { rules, tag, force: *force, lazy: *lazy, first };
            seal::seal(&engine()?, &cli.engine(PARALLEL_LAYERS), image, options, output).await
        }
        // Needs no store: a machine that builds has none.
        Command::Push(arguments) => push::push(&cli.engine(PARALLEL_LAYERS), arguments, output).await,
        Command::Pin { image, reason, time } => {
            let wish = pins::Wish { reason: reason.clone(), time: *time };
            pins::pin(&engine()?, Stored::parse(image, None)?, wish, output).await
        }
        Command::Unpin { image } => pins::unpin(&engine()?, Stored::parse(image, None)?, output).await,
        Command::Pins => pins::list(&engine()?, output),
        Command::Store(StoreCommand::Ls) => store::ls(&engine()?, output),
        Command::Store(StoreCommand::Du) => store::du(&engine()?, output),
        Command::Store(StoreCommand::Fsck) => fsck::fsck(&engine()?, output),
        Command::Store(StoreCommand::Scrub { rate }) => scrub::scrub(&engine()?, *rate, output).await,
        Command::Store(StoreCommand::Why { what }) => why::why(&engine()?, what, output).await,
        Command::Prune { watermark, watermarks, dry_run } => {
            let marks = watermark.then(|| watermarks.percents(cli.limits.min_free)).transpose()?;
            prune::prune(&engine()?, marks, *dry_run, output)
        }
        Command::Verify { image, repair, enable_verity } => {
            let stored = image.as_deref().map(|image| Stored::parse(image, None)).transpose()?;
            let engine = engine()?;
            if *enable_verity {
                verify::enable_verity(&engine).await?;
            }
            verify::verify(&engine, stored, *repair, output).await
        }
        Command::Status { watch: false } => status::show(&cli.state_dir, output).await,
        Command::Status { watch: true } => status::watch(&cli.state_dir, output).await,
        Command::Pulls { command: None } => pulls::list(&cli.state_dir, output).await,
        Command::Pulls { command: Some(PullsCommand::Cancel { image }) } => {
            pulls::cancel(&cli.state_dir, image, output).await
        }
        Command::Refresh { what } => {
            refresh::refresh(&cli.state_dir, what.as_deref().unwrap_or_default(), output).await
        }
        Command::Policy(PolicyCommand::Check { image, namespace, platform }) => {
            let wanted = Wanted::parse(image, platform.as_deref())?;
            policy::check(&cli.engine(PARALLEL_LAYERS), wanted, namespace.clone(), output).await
        }
        Command::Probe => mounts::probe(&engine()?, output),
        // Needs no store, so it was printed before one is opened.
        Command::Completions { shell } => completions::print(*shell),
    }
}
