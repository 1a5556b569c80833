//! Runs one plugin: the request on its standard input, the response on its standard output, with limits on time and
//! size, in a clean environment.
//!
//! Standard error is discarded, because it may contain secrets that must not reach the log.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::config::{PROTOCOL, Provider};
use super::duration;
use crate::oci::Credentials;

/// The same as kubelet's.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest response, in bytes. Usual ones have a few KiB.
const ANSWER_MAX: u64 = 1 << 20;
/// Enough to find other programs. Other variables come from the plugin's configuration.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    let mut child = Command::new(&provider.program)
        .args(&provider.arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(provider.environment.0.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // A group of its own, so that the plugin's children can be killed with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    // Processes that the plugin has started are killed with it, also if this future is dropped.
    let group = ProcessGroup(child.id());
    let exchanged = tokio::time::timeout(TIMEOUT, exchange(&mut child, &request)).await;
    // Before the child is reaped: its group id cannot belong to another group yet.
    drop(group);
    let output = exchanged.map_err(|_| format!("it has not answered within {} s", TIMEOUT.as_secs()))??;
    let status = child.wait().await.map_err(unobserved)?;
    if status.success() { read(&output) } else { Err(format!("it ended with {status}")) }
}

/// A process group, killed when dropped.
struct ProcessGroup(Option<u32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Writes the request, reads the output, and waits until the plugin has ended.
async fn exchange(child: &mut Child, request: &[u8]) -> Result<Vec<u8>, String> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err("it has no pipes".to_owned());
    };
    let write = async move {
        // A plugin may ignore its input; a broken pipe is not a failure.
        let _ = stdin.write_all(request).await;
        drop(stdin);
    };
    let mut output = Vec::new();
    // One byte more than the limit shows that the response exceeds it.
    let mut bounded = stdout.take(ANSWER_MAX + 1);
    // At the same time: a plugin that writes before it has read must not block.
    let ((), read) = tokio::join!(write, bounded.read_to_end(&mut output));
    read.map_err(|error| format!("its answer cannot be read: {error}"))?;
    if output.len() as u64 > ANSWER_MAX {
        return Err(format!("its answer is longer than {ANSWER_MAX} bytes"));
    }
    ended(child).await.map_err(unobserved)?;
    Ok(output)
}

/// Waits until a program has ended, without reaping it. It ends soon after its output has ended.
async fn ended(child: &Child) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    // Polled, because tokio's wait would reap the child and free its process id.
    while waitid(WaitId::Pid(pid), options)?.is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn unobserved(error: io::Error) -> String {
    format!("its exit cannot be observed: {error}")
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
