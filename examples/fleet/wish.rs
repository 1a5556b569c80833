//! One ImagePrefetch from its beginning to its end, and what it has cost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use composefs_csi::prefetch::status::PrefetchStatus;
use composefs_csi::prefetch::waves::PLACES;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::admin::Admin;
use super::metrics::Metrics;
use super::{Arguments, seconds};

const REQUESTS: &str = "apiserver_request_total";
const DURATIONS: &str = "apiserver_request_duration_seconds";
const REPORTS: [(&str, &str); 2] = [("resource", "nodeimagecaches"), ("verb", "PATCH")];
const GROUP: [(&str, &str); 1] = [("group", "csi.composefs.dev")];

/// When what had come, in seconds from the creation of the object.
#[derive(Debug, Default)]
pub struct Course {
    resolved: Option<f64>,
    admitted: Option<f64>,
    complete: f64,
    /// The most reports a second, over at least ten.
    busiest: f64,
}

/// Makes the wish, and follows it until all nodes are ready.
pub async fn follow(admin: &Admin, arguments: &Arguments, before: &Metrics) -> Result<Course> {
    let kind = GroupVersionKind::gvk("csi.composefs.dev", "v1alpha1", "ImagePrefetch");
    let resource = ApiResource::from_gvk_with_plural(&kind, "imageprefetches");
    let api: Api<DynamicObject> = Api::namespaced_with(admin.client.clone(), "default", &resource);
    let images: Vec<Value> = (0..arguments.images)
        .map(|number| json!({"reference": format!("registry.example.com/models/llm:{number}")}))
        .collect();
    let parallelism = arguments.parallelism.parse::<u32>();
    let parallelism = parallelism.map_or_else(|_| json!(arguments.parallelism), |count| json!(count));
    let mut object = DynamicObject::new("fleet", &resource);
    object.data = json!({"spec": {"images": images, "parallelism": parallelism}});
    api.create(&PostParams::default(), &object).await.context("the wish cannot be made")?;
    let (began, mut course) = (Instant::now(), Course::default());
    let (mut last, mut shown) = (Metrics::read(admin)?, Instant::now());
    println!("wish made; {:.0} reports so far", before.sum(REQUESTS, &REPORTS));
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut object = api.get("fleet").await.context("the wish cannot be read")?;
        let status = object.data.get_mut("status").map(Value::take).unwrap_or_default();
        let status: PrefetchStatus = serde_json::from_value(status).unwrap_or_default();
        let is = |name: &str| status.condition(name).is_some_and(|condition| condition.status == "True");
        let now = began.elapsed().as_secs_f64();
        if is("Resolved") {
            course.resolved.get_or_insert(now);
        }
        if status.admitted == PLACES {
            course.admitted.get_or_insert(now);
        }
        if is("Complete") {
            course.complete = now;
            return Ok(course);
        }
        if last.at.elapsed() >= Duration::from_secs(10) {
            let metrics = Metrics::read(admin)?;
            let reports = metrics.sum(REQUESTS, &REPORTS) - last.sum(REQUESTS, &REPORTS);
            let rate = reports / metrics.at.duration_since(last.at).as_secs_f64();
            course.busiest = course.busiest.max(rate);
            last = metrics;
        }
        if shown.elapsed() >= Duration::from_secs(30) {
            println!("{}: admitted {}, {:?}", seconds(began), status.admitted, status.nodes);
            shown = Instant::now();
        }
        ensure!(now < 3600.0, "not all nodes are ready after an hour: {:?}", status.nodes);
    }
}

/// What it was, and what it has cost since `before`.
pub fn print(course: &Course, before: &Metrics, after: &Metrics) {
    let time =
        |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), |time| format!("{time:.0} s"));
    println!("resolved after {}, all admitted after {}", time(course.resolved), time(course.admitted));
    println!("all nodes ready after {:.0} s", course.complete);
    for (resource, verb) in [
        ("nodeimagecaches", "PATCH"),
        ("nodeimagecaches", "POST"),
        ("nodes", "GET"),
        ("imageprefetches", "PATCH"),
        ("imageprefetches", "LIST"),
        ("imageprefetches", "WATCH"),
    ] {
        let labels = [("resource", resource), ("verb", verb)];
        let codes = after.grown(before, REQUESTS, &labels, "code");
        let all: f64 = codes.values().sum();
        let codes: Vec<_> = codes.iter().map(|(code, count)| format!("{code}: {count:.0}")).collect();
        let rate = all / course.complete;
        println!("{verb} {resource}: {all:.0}, {rate:.1} a second ({})", codes.join(", "));
    }
    println!("reports in the busiest ten seconds: {:.0} a second", course.busiest);
    for part in [0.5, 0.99] {
        let below = after.quantile(before, DURATIONS, &REPORTS, part).unwrap_or(f64::NAN);
        println!("{:.0} % of the reports were answered within {below} s", part * 100.0);
    }
    let grown = |name: &str| {
        let one = |labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
        one(&GROUP)
    };
    let (events, bytes) = (grown("apiserver_watch_events_total"), grown("apiserver_watch_events_sizes_sum"));
    println!("changes sent to watches: {events:.0}, {:.0} MB", bytes / 1e6);
    // Their names differ by release.
    let database = |metrics: &Metrics| {
        [
            "apiserver_storage_size_bytes",
            "apiserver_storage_db_total_size_in_bytes",
            "etcd_db_total_size_in_bytes",
        ]
        .iter()
        .map(|name| metrics.sum(name, &[]))
        .fold(0.0, f64::max)
    };
    println!(
        "etcd's file: {:.0} MB, before the wish {:.0} MB",
        database(after) / 1e6,
        database(before) / 1e6
    );
    let cpu = |metrics: &Metrics| metrics.sum("process_cpu_seconds_total", &[]);
    let memory = after.sum("process_resident_memory_bytes", &[]) / 1e6;
    println!("API server: {:.0} s of a processor, {memory:.0} MB resident", cpu(after) - cpu(before));
}
