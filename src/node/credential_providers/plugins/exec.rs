//! Asking one plugin: the request on its standard input, the answer on its standard output, bounded in time and
//! size, in an environment of its own.
//!
//! What a plugin says on standard error is thrown away: it may be a secret, and the log is not the place for it.

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

/// As kubelet's.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Answers are a few KiB.
const ANSWER_MAX: u64 = 1 << 20;
/// Enough to find other programs; what else a plugin needs stands in its configuration.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a plugin is asked. Never printed: it may hold a token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question<'a> {
    pub image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_account_annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    question: &'a Question<'a>,
}

/// What a plugin answers.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub credentials: Credentials,
    pub scope: Scope,
    /// How long it may be kept; `None` for what the configuration says.
    pub keep: Option<Duration>,
}

/// What an answer is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Scope {
    Image,
    Registry,
    Global,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    kind: String,
    api_version: String,
    cache_key_type: Scope,
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
pub(super) async fn ask(provider: &Provider, question: &Question<'_>) -> Result<Answer, String> {
    let request = Request { kind: "CredentialProviderRequest", api_version: PROTOCOL, question };
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
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    // Whatever the plugin has started goes with it, also when nobody waits any more.
    let group = Group(child.id());
    let talked = tokio::time::timeout(TIMEOUT, talk(&mut child, &request)).await;
    // Not reaped yet, so that the number is still this group's and nobody else's.
    drop(group);
    let output = talked.map_err(|_| format!("it has not answered within {} s", TIMEOUT.as_secs()))??;
    let status = child.wait().await.map_err(unseen)?;
    if status.success() { read(&output) } else { Err(format!("it ended with {status}")) }
}

/// A process group, killed when dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, request: &[u8]) -> Result<Vec<u8>, String> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
        return Err("it has no pipes".to_owned());
    };
    let write = async move {
        // A plugin need not read.
        let _ = stdin.write_all(request).await;
        drop(stdin);
    };
    let mut output = Vec::new();
    let mut bounded = stdout.take(ANSWER_MAX + 1);
    let ((), read) = tokio::join!(write, bounded.read_to_end(&mut output));
    read.map_err(|error| format!("its answer cannot be read: {error}"))?;
    if output.len() as u64 > ANSWER_MAX {
        return Err(format!("its answer is longer than {ANSWER_MAX} bytes"));
    }
    ended(child).await.map_err(unseen)?;
    Ok(output)
}

/// Waits for the end of a program, which is near once its output has ended, and leaves it to be reaped.
async fn ended(child: &Child) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    while waitid(WaitId::Pid(pid), options)?.is_none() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

fn unseen(error: io::Error) -> String {
    format!("its end cannot be seen: {error}")
}

fn read(output: &[u8]) -> Result<Answer, String> {
    // serde_json repeats values in its messages, and these are secrets.
    let response: Response = serde_json::from_slice(output)
        .map_err(|error| format!("its answer is no CredentialProviderResponse (line {})", error.line()))?;
    if (&*response.kind, &*response.api_version) != ("CredentialProviderResponse", PROTOCOL) {
        return Err(format!("its answer is no CredentialProviderResponse of {PROTOCOL}"));
    }
    let keep = match response.cache_duration {
        None => None,
        Some(text) => Some(duration::parse(&text).ok_or("its answer's cacheDuration is none")?),
    };
    let auth = response.auth.unwrap_or_default().into_iter();
    let passwords = auth.map(|(key, auth)| (key, (auth.username, auth.password)));
    let credentials = Credentials::of_passwords(passwords).map_err(|_| {
        "its answer has a key in auth that names no registry, or half a credential".to_owned()
    })?;
    Ok(Answer { credentials, scope: response.cache_key_type, keep })
}
