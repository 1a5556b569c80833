//! What prefetching costs one real API server with thousands of nodes: `make fleet` starts etcd and an API server, and runs
//! this.
//!
//! Nodes are tasks of this process. Each has its own connections, and the rights of the chart's ServiceAccount by a token of
//! its own; all that it does is the plugin's own code, but for the pull: there a [`nodes::Pretended`] depot waits instead. The
//! controller is the program itself.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(missing_docs, reason = "not a library")]

mod admin;
mod controller;
mod metrics;
mod nodes;
mod wish;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use admin::Admin;
use metrics::Metrics;

/// Prefetches an image on many pretended nodes of a cluster, which it changes: use one that is made for this.
#[derive(Debug, Parser)]
struct Arguments {
    /// Nodes.
    #[arg(long, default_value_t = 5000)]
    nodes: u32,
    /// Seconds that a pull takes in the mean; each takes between half of them and three halves.
    #[arg(long, default_value_t = 60)]
    pull: u64,
    /// `parallelism` of the wish.
    #[arg(long, default_value = "10%")]
    parallelism: String,
    /// Images of the wish.
    #[arg(long, default_value_t = 1)]
    images: u32,
    /// Seconds over which the nodes' plugins start.
    #[arg(long, default_value_t = 60)]
    start: u64,
    /// The cluster and its administrator.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The program, for the controller; by default that beside this one.
    #[arg(long)]
    program: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = tokio::runtime::Runtime::new()
        .context("there is no runtime")
        .and_then(|runtime| runtime.block_on(measure(&arguments)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let admin = Admin::connect(&arguments.kubeconfig).await?;
    admin.apply_chart()?;
    println!("Kubernetes {}; {} nodes, pulls of {} s", admin.version, arguments.nodes, arguments.pull);
    let began = Instant::now();
    let files = nodes::prepare(&admin, arguments.nodes).await?;
    println!("nodes and tokens made in {}", seconds(began));

    let controller = controller::start(&admin, arguments.program.as_deref()).await?;
    let shutdown = CancellationToken::new();
    let pull = Duration::from_secs(arguments.pull);
    let began = Instant::now();
    let tasks = nodes::start(&files, pull, Duration::from_secs(arguments.start), &shutdown);
    let watches = |metrics: &Metrics| {
        // Their name differs by release.
        let labels = [("resource", "imageprefetches"), ("verb", "WATCH")];
        metrics.sum("apiserver_longrunning_requests", &labels)
            + metrics.sum("apiserver_longrunning_gauge", &labels)
    };
    let all = f64::from(arguments.nodes);
    let watching = loop {
        let metrics = Metrics::read(&admin)?;
        if watches(&metrics) >= all {
            break metrics;
        }
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(arguments.start + 300),
            "only {} of {all} nodes watch after {}",
            watches(&metrics),
            seconds(began)
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    println!("all watch after {}", seconds(began));

    let course = wish::follow(&admin, arguments, &watching).await?;
    let after = Metrics::read(&admin)?;
    wish::print(&course, &watching, &after);
    admin.print_sizes().await?;
    println!("controller: {}", controller.used()?);
    shutdown.cancel();
    for task in tasks {
        task.await.context("a node has panicked")??;
    }
    Ok(())
}

/// The time since then, for people.
fn seconds(since: Instant) -> String {
    format!("{:.0} s", since.elapsed().as_secs_f64())
}
