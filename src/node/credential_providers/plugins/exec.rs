//! Runs one plugin: the request on its standard input, the response on its standard output.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::{PROTOCOL, Provider};
use crate::duration;
use crate::oci::Credentials;
use crate::program::Run;

/// The same as kubelet's.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest response, in bytes. Usual ones have a few KiB.
const ANSWER_MAX: u64 = 1 << 20;

/// A request to a plugin. Without `Debug`, because it may hold a token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecRequest<'a> {
    pub image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_account_annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireRequest<'a> {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    request: &'a ExecRequest<'a>,
}

/// A plugin's response.
#[derive(Debug, Clone)]
pub(super) struct ExecResponse {
    pub credentials: Credentials,
    pub scope: CacheScope,
    /// How long it may be cached; `None` for the configured duration.
    pub keep: Option<Duration>,
}

/// The images that a response is valid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum CacheScope {
    Image,
    Registry,
    Global,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireResponse {
    kind: String,
    api_version: String,
    cache_key_type: CacheScope,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Runs the plugin. The error is a sentence without secrets.
pub(super) async fn run(provider: &Provider, request: &ExecRequest<'_>) -> Result<ExecResponse, String> {
    let request = WireRequest { kind: "CredentialProviderRequest", api_version: PROTOCOL, request };
    let request = serde_json::to_vec(&request).map_err(|_| "the request cannot be written".to_owned())?;
    let environment = provider.environment.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let run = Run {
        program: &provider.program,
        arguments: &provider.arguments,
        environment: environment.collect(),
        input: &request,
        timeout: TIMEOUT,
        output_max: ANSWER_MAX,
    };
    let (status, output) = run.to_its_end().await?;
    if status.success() { read(&output) } else { Err(format!("it ended with {status}")) }
}

fn read(output: &[u8]) -> Result<ExecResponse, String> {
    // serde_json's messages quote values, which are secrets here.
    let response: WireResponse = serde_json::from_slice(output)
        .map_err(|error| format!("its answer is not a CredentialProviderResponse (line {})", error.line()))?;
    if (&*response.kind, &*response.api_version) != ("CredentialProviderResponse", PROTOCOL) {
        return Err(format!("its answer is not a CredentialProviderResponse of {PROTOCOL}"));
    }
    let keep = match response.cache_duration {
        None => None,
        Some(text) => Some(duration::parse(&text).ok_or("its answer has a malformed cacheDuration")?),
    };
    let auth = response.auth.unwrap_or_default().into_iter();
    let passwords = auth.map(|(key, auth)| (key, (auth.username, auth.password)));
    let credentials = Credentials::of_passwords(passwords).map_err(|_| {
        "its answer has a key in auth that is not a registry, or an incomplete credential".to_owned()
    })?;
    Ok(ExecResponse { credentials, scope: response.cache_key_type, keep })
}
