//! Programs that have credentials (docker's credential helpers), for the node's own docker config.
//!
//! A program is `docker-credential-NAME get`: the registry on its standard input, JSON on its standard output. Only
//! programs of one directory are run, which the operator names, and only for the node's config: a pod's secret must not
//! choose what runs on the node. The environment is clean but for a `PATH` and a `HOME`.
//!
//! An answer is used for a minute, a failure for ten seconds, so that many pods that start do not run it each.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Credential, Secret};
use crate::program::Run;

/// How long a program may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer, in bytes. Tokens of clouds have a few KiB.
const ANSWER_MAX: u64 = 64 << 10;
/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(60);
/// How long a failure counts.
const FAILED: Duration = Duration::from_secs(10);
/// The most registries whose answers are kept.
const ANSWERS_MAX: usize = 256;

/// The helper programs of a node.
#[derive(Debug, Default)]
pub(in crate::oci) struct Helpers {
    directory: Option<PathBuf>,
    /// By program and registry.
    answers: Mutex<HashMap<(String, String), Arc<Cell>>>,
}

/// A program and a registry. One caller runs it; others wait.
#[derive(Debug, Default)]
struct Cell {
    running: tokio::sync::Mutex<()>,
    answer: Mutex<Option<Answer>>,
}

#[derive(Debug, Clone)]
struct Answer {
    at: Instant,
    outcome: Result<Option<Credential>, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireAnswer {
    username: String,
    secret: String,
}

impl Helpers {
    /// The programs of `directory`; none at all without one.
    pub(in crate::oci) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, answers: Mutex::default() }
    }

    /// Asks the program unless there is a fresh answer. What it answers is [`Helpers::known`] then.
    pub(in crate::oci) async fn ask(&self, helper: &str, server: &str) {
        let Some(directory) = &self.directory else { return };
        let cell = self.cell(helper, server);
        let _running = cell.running.lock().await;
        if cell.fresh().is_some() {
            return;
        }
        let outcome = run(directory, helper, server).await;
        if let Err(why) = &outcome {
            tracing::warn!(helper, server, "a credential helper gave no answer: {why}");
        }
        let answer = Answer { at: Instant::now(), outcome };
        *cell.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    /// What the program answered last; the error is why there is no answer. `Ok(None)`: it has no credential.
    pub(in crate::oci) fn known(&self, helper: &str, server: &str) -> Result<Option<Credential>, String> {
        if self.directory.is_none() {
            return Err("no directory of helper programs is set".to_owned());
        }
        let answer = self.cell(helper, server).answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        answer.map_or_else(|| Err("it has not been asked".to_owned()), |answer| answer.outcome)
    }

    fn cell(&self, helper: &str, server: &str) -> Arc<Cell> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (helper.to_owned(), server.to_owned());
        if !answers.contains_key(&key) && answers.len() >= ANSWERS_MAX {
            // What somebody is about to use stays.
            answers.retain(|_, cell| cell.fresh().is_some() || Arc::strong_count(cell) > 1);
            if answers.len() >= ANSWERS_MAX {
                answers.clear();
            }
        }
        Arc::clone(answers.entry(key).or_default())
    }
}

impl Cell {
    fn fresh(&self) -> Option<Answer> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let counts = if answer.outcome.is_ok() { FRESH } else { FAILED };
        (answer.at.elapsed() < counts).then_some(answer)
    }
}

/// Runs the program; the error is a sentence without secrets.
async fn run(directory: &Path, helper: &str, server: &str) -> Result<Option<Credential>, String> {
    let program = program(directory, helper)?;
    let run = Run {
        program: &program,
        arguments: &["get"],
        environment: vec![("HOME", "/root")],
        input: server.as_bytes(),
        timeout: TIMEOUT,
        output_max: ANSWER_MAX,
    };
    let (status, output) = run.to_its_end().await?;
    if status.success() {
        return parse(&output).map(Some);
    }
    // docker-credential-helpers: the one failure that is an answer.
    let text = String::from_utf8_lossy(&output);
    if text.trim().eq_ignore_ascii_case("credentials not found in native keychain") {
        return Ok(None);
    }
    // Its output may hold a secret all the same.
    Err(format!("it ended with {status}"))
}

/// The program's file.
fn program(directory: &Path, helper: &str) -> Result<PathBuf, String> {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    if helper.is_empty() || helper.len() > 100 || !helper.bytes().all(is_plain) {
        return Err("its name is not one of a helper program".to_owned());
    }
    let path = directory.join(format!("docker-credential-{helper}"));
    let found = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !found.is_file() || found.mode() & 0o111 == 0 {
        return Err(format!("{} is not an executable file", path.display()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!("{} may be written by others than its owner", path.display()));
    }
    Ok(path)
}

fn parse(output: &[u8]) -> Result<Credential, String> {
    // serde_json's messages quote values, which are secrets here.
    let answer: WireAnswer = serde_json::from_slice(output)
        .map_err(|_| "its answer is not that of a credential helper".to_owned())?;
    let WireAnswer { username, secret } = answer;
    if secret.is_empty() {
        return Err("its answer has an empty secret".to_owned());
    }
    // The user that docker gives to identity tokens.
    if username == "<token>" {
        return Ok(Credential(Secret::IdentityToken(secret)));
    }
    Ok(Credential::password(&username, &secret))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn helper(directory: &Path, name: &str, script: &str) {
        let path = directory.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn answer(helpers: &Helpers, name: &str) -> Result<Option<Credential>, String> {
        helpers.ask(name, "r.io").await;
        helpers.known(name, "r.io")
    }

    #[tokio::test]
    async fn answers_are_credentials_tokens_nothing_or_failures() {
        let directory = tempfile::tempdir().unwrap();
        let helpers = Helpers::new(Some(directory.path().to_owned()));
        let at = directory.path();
        helper(
            at,
            "user",
            r#"read s; printf '{"ServerURL":"%s","Username":"%s","Secret":"p"}' "$s" "$1-$s""#,
        );
        helper(at, "token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        helper(at, "none", "echo 'credentials not found in native keychain'; exit 1");
        helper(at, "broken", "echo s3cret; echo s3cret >&2; exit 3");
        helper(at, "odd", "echo '{\"Username\":\"s3cret\"}'");
        helper(at, "large", "yes s3cret");
        helper(
            at,
            "env",
            r#"printf '{"Username":"%s","Secret":"p"}' "$(env | grep -v '^_=\|PWD\|SHLVL' | sort | cut -d= -f1 | tr '\n' ,)""#,
        );
        assert_eq!(answer(&helpers, "user").await.unwrap().unwrap(), Credential::password("get-r.io", "p"));
        assert!(
            answer(&helpers, "token").await.unwrap().unwrap()
                == Credential(Secret::IdentityToken("t".into()))
        );
        assert_eq!(answer(&helpers, "none").await, Ok(None));
        assert_eq!(answer(&helpers, "env").await.unwrap().unwrap(), Credential::password("HOME,PATH,", "p"));
        for name in ["broken", "odd", "large", "absent", "../user", ""] {
            let why = answer(&helpers, name).await.unwrap_err();
            assert!(!why.contains("s3cret"), "{name}: {why}");
        }
    }

    #[tokio::test]
    async fn what_others_may_write_is_not_run() {
        let directory = tempfile::tempdir().unwrap();
        helper(directory.path(), "x", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        let path = directory.path().join("docker-credential-x");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let helpers = Helpers::new(Some(directory.path().to_owned()));
        assert!(answer(&helpers, "x").await.unwrap_err().contains("written by others"));
        assert!(answer(&Helpers::new(None), "x").await.unwrap_err().contains("no directory"));
    }

    #[tokio::test]
    async fn a_program_runs_once_for_many_callers() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        helper(
            directory.path(),
            "x",
            &format!("echo run >> {}; echo '{{\"Username\":\"u\",\"Secret\":\"p\"}}'", log.display()),
        );
        let helpers = Helpers::new(Some(directory.path().to_owned()));
        let asks = (0..20).map(|_| helpers.ask("x", "r.io"));
        futures_util::future::join_all(asks).await;
        assert_eq!(std::fs::read_to_string(log).unwrap(), "run\n");
    }
}
