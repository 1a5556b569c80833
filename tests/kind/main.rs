//! The driver on a real cluster: installed by its chart, used by pods, disturbed, upgraded, removed.
//!
//! Runs on whatever cluster KUBECONFIG names and changes it, so it is no part of plain `cargo test`:
//! `make e2e` starts a cluster on this machine and runs it there; README.md says how on kind and elsewhere.
//!
//! The scenarios build on one installation and run one after the other, in the order below. Arguments select
//! those whose names contain one of them; the first and the last run in any case. One that fails does not stop
//! the others. What the cluster knows of a failure is printed with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod changing;
mod claim;
mod cluster;
mod commands;
mod driver;
mod examples;
mod expected;
mod figures;
mod images;
mod inline;
mod install;
mod manifests;
mod node;
mod objects;
mod persistent;
mod places;
mod pods;
mod prefetch;
mod prefetch_objects;
mod private;
mod registry;
mod restart;
mod rights;
mod settings;
mod sharing;
mod signed;
#[path = "../support/mod.rs"]
mod support;
mod uninstall;
mod upgrade;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use cluster::Cluster;
use settings::Settings;

type Scenario = (&'static str, for<'a> fn(&'a Cluster) -> LocalBoxFuture<'a, ()>);

/// A scenario's name and its body, an async function of the cluster.
macro_rules! scenario {
    ($name:literal, $body:path) => {
        ($name, |cluster| $body(cluster).boxed_local())
    };
}

const INSTALL: Scenario = scenario!("install by chart", install::by_chart);
const UNINSTALL: Scenario = scenario!("uninstall with nothing left", uninstall::leaves_nothing);
const SCENARIOS: &[Scenario] = &[
    scenario!("manifests pass the API server's strict validation", manifests::are_valid),
    scenario!("inline volume shows the image", inline::shows_the_image),
    scenario!("inline volume that cannot be says why", inline::says_why_not),
    scenario!("volumes wherever pods mount them", places::all_work),
    scenario!("containers that come later, and users of a pod's own", places::later_and_mapped),
    scenario!("persistent volume is shared by pods", persistent::is_shared),
    scenario!("claim is provisioned and pinned", claim::is_provisioned_and_pinned),
    scenario!("claim that cannot be says why", claim::says_why_not),
    scenario!("private registry with a secret", private::needs_the_secret),
    scenario!("private registry through a claim", private::through_a_claim),
    scenario!("unsigned image is refused", signed::or_refused),
    scenario!("examples work", examples::work),
    scenario!("commands in the plugin's container know its settings", commands::know_the_settings),
    scenario!("helm test passes", commands::test_of_the_release),
    scenario!("volumes that are written to, and that follow a tag", changing::both),
    scenario!("rights by request and no more", rights::by_request),
    scenario!("prefetched images are there before their pods, and on later nodes", prefetch::before_the_pod),
    scenario!("driver killed under a reader", restart::under_a_reader),
    scenario!("upgrade under a reader", upgrade::under_a_reader),
    scenario!("thirty pods share one image", sharing::thirty_pods),
    scenario!("idle driver is small", figures::idle),
];

fn main() -> ExitCode {
    let settings = match Settings::from_environment() {
        Ok(settings) => settings,
        Err(what) => {
            eprintln!("kind: {what}");
            return ExitCode::FAILURE;
        }
    };
    // Whatever looks like an option is the test runner's (`--nocapture`), and nothing to us.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen = SCENARIOS
        .iter()
        .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())));
    let plan: Vec<&Scenario> = [&INSTALL].into_iter().chain(chosen).chain([&UNINSTALL]).collect();
    if plan.len() == 2 && !wanted.is_empty() {
        eprintln!("kind: no scenario's name contains {wanted:?}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if runtime.block_on(run(settings, &plan)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the plan; whether all of it passed.
async fn run(settings: Settings, plan: &[&Scenario]) -> bool {
    let cluster = Cluster::connect(settings).await;
    let mut failed = Vec::new();
    for (name, body) in plan {
        let started = Instant::now();
        // A panic ends its scenario and not the suite.
        let outcome = AssertUnwindSafe(body(&cluster)).catch_unwind().await;
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("test {name} ... ok ({seconds:.1} s)"),
            Err(_) => {
                println!("test {name} ... FAILED ({seconds:.1} s)\n{}", cluster.situation());
                failed.push(*name);
                // Nothing else can pass without the driver.
                if *name == INSTALL.0 {
                    break;
                }
            }
        }
        cluster.clear().await;
    }
    println!("kind: {} of {} scenarios passed", plan.len() - failed.len(), plan.len());
    failed.is_empty()
}
