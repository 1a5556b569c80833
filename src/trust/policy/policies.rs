//! Which policy governs a namespace now: files, looked at again when they change.
//!
//! Nobody watches anything: whoever asks looks at the files with `stat`, at most once a second, and reads them
//! again when one is another. ConfigMaps are mounted as links that are swapped, and keys can change without the
//! policy. A policy that cannot be read or parsed governs all the same: it admits nothing, until it is repaired.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::{Fault, PolicyError, Problem};
use super::files::Files;
use super::{Policy, decide};
use crate::oci::digest::Digest;

/// How long a look at the files is good for.
const FRESH: Duration = Duration::from_secs(1);

/// The policy files of a node.
#[derive(Debug)]
pub struct Policies {
    file: Option<PathBuf>,
    directory: Option<PathBuf>,
    kept: Mutex<HashMap<PathBuf, Arc<Mutex<Kept>>>>,
}

/// The policy that governs.
#[derive(Debug, Clone)]
pub enum Governing {
    /// There is no policy file for this namespace.
    Nothing,
    /// This one.
    Policy {
        /// The policy.
        policy: Arc<Policy>,
        /// Digest over its text and all files that it names.
        digest: Digest,
    },
    /// One that cannot be used.
    Broken {
        /// Its file, if it is known.
        file: Option<PathBuf>,
        /// What is wrong.
        why: String,
    },
}

#[derive(Debug)]
struct Kept {
    looked: Instant,
    files: Files,
    policy: Result<Arc<Policy>, PolicyError>,
}

impl Policies {
    /// Policies at these places. Reads nothing yet.
    pub fn new(file: Option<PathBuf>, directory: Option<PathBuf>) -> Self {
        Self { file, directory, kept: Mutex::default() }
    }

    /// The policy that governs `namespace`: its own file in the directory, or else the one file.
    pub fn governing(&self, namespace: Option<&str>) -> Governing {
        let file = match (&self.directory, namespace) {
            (Some(directory), Some(namespace)) => match own_file(directory, namespace) {
                Ok(own) => own.or_else(|| self.file.clone()),
                Err(why) => return Governing::Broken { file: None, why },
            },
            _ => self.file.clone(),
        };
        let Some(file) = file else { return Governing::Nothing };
        let kept = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                kept.entry(file.clone()).or_insert_with(|| Arc::new(Mutex::new(Kept::load(&file, None)))),
            )
        };
        // One reads, the others wait: they want what it reads.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.look(&file);
        match &kept.policy {
            Ok(policy) => Governing::Policy { policy: Arc::clone(policy), digest: kept.files.digest() },
            Err(error) => Governing::Broken { file: Some(file), why: error.to_string() },
        }
    }
}

/// The policy file of a namespace, if it has one.
fn own_file(directory: &Path, namespace: &str) -> Result<Option<PathBuf>, String> {
    if !is_label(namespace) {
        let namespace = decide::printable(namespace);
        return Err(format!(
            "namespace {namespace:?} is not a DNS label, so it has no policy; name it as Kubernetes does"
        ));
    }
    let cannot = |path: &Path, error: std::io::Error| {
        format!(
            "cannot look for a policy at {}: {error}; mount --policy-dir and make it readable",
            path.display()
        )
    };
    let file = directory.join(format!("{namespace}.json"));
    match std::fs::symlink_metadata(&file) {
        Ok(_) => Ok(Some(file)),
        // Not there, or is the whole directory not there? A mount that is missing must not open anything.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match std::fs::read_dir(directory) {
            Ok(_) => Ok(None),
            Err(error) => Err(cannot(directory, error)),
        },
        Err(error) => Err(cannot(&file, error)),
    }
}

/// RFC 1123, as Kubernetes has it for namespaces.
fn is_label(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl Kept {
    /// Reads everything. A failure that was there `before` is not logged again.
    fn load(file: &Path, before: Option<&PolicyError>) -> Self {
        let mut files = Files::default();
        let policy = match files.read(file) {
            Ok(text) => Policy::parse(file, &text, &mut |path| files.read(path)),
            Err(error) => {
                let problem = Problem::Unreadable { path: file.to_owned(), why: error.to_string() };
                Err(Fault { at: String::new(), problem }.within(file))
            }
        };
        match &policy {
            Ok(_) => tracing::info!(policy = %file.display(), digest = %files.digest(), "policy in force"),
            Err(error) if before == Some(error) => {}
            Err(error) => {
                tracing::error!("{error}; until this is repaired, nothing that it governs is admitted")
            }
        }
        Self { looked: Instant::now(), files, policy: policy.map(Arc::new) }
    }

    /// Reads the files again if they are others than before.
    fn look(&mut self, file: &Path) {
        if self.looked.elapsed() < FRESH {
            return;
        }
        if self.files.changed() {
            *self = Self::load(file, self.policy.as_ref().err());
        }
        self.looked = Instant::now();
    }
}
