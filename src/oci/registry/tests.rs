//! The client against a server that misbehaves on purpose.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;

use crate::oci::reference::{Reference, Version};
use crate::oci::{Credentials, RetryPolicy, Source, SourceSettings, Sources};

mod authorization;
mod blob;
mod challenges;
mod codings;
mod documents;
mod hints;
mod manifest;
mod mirrors;
mod range;
mod referrers;
mod retry;
mod script;
mod upload;

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

fn settings(insecure: &[&str]) -> SourceSettings {
    SourceSettings {
        insecure_registries: insecure.iter().map(|host| (*host).to_owned()).collect::<BTreeSet<_>>(),
        // Long, so that a busy machine is no stalled registry.
        read_timeout: Duration::from_secs(20),
        retry: RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(4),
            longest_retry_after: Duration::from_secs(5),
            ..RetryPolicy::default()
        },
        proxy_from_environment: false,
        ..SourceSettings::default()
    }
}

fn sources(host: &str) -> Sources {
    Sources::new(&settings(&[host])).unwrap()
}

fn open(sources: &Sources, host: &str, credentials: &Credentials) -> Arc<dyn Source> {
    let reference: Reference = format!("{host}/team/app:v1").parse().unwrap();
    sources.open(&reference, credentials).unwrap()
}

fn anonymous(host: &str) -> Arc<dyn Source> {
    open(&sources(host), host, &Credentials::none())
}

/// A source that takes a connection for stalled soon.
fn impatient(host: &str, read_timeout: Duration) -> Arc<dyn Source> {
    let settings = SourceSettings { read_timeout, ..settings(&[host]) };
    open(&Sources::new(&settings).unwrap(), host, &Credentials::none())
}

fn v1() -> Version {
    Version::Tag("v1".into())
}

fn encoded(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn credentials(host: &str, user: &str, password: &str) -> Credentials {
    let auth = encoded(user, password);
    let json = format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#);
    Credentials::parse(json.as_bytes()).unwrap()
}
