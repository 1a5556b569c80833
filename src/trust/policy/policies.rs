//! Which policy governs a namespace now. The files are read again when they change.
//!
//! There is no file watcher. A caller checks the files with `stat`, at most once a second, and reads all of them
//! again if one has changed: ConfigMaps are mounted as links that are swapped, and keys can change without the
//! policy. A policy that cannot be read or parsed still governs: it admits nothing until it is repaired.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::{Fault, PolicyError, Problem};
use super::reasons::printable;
use super::rule::Policy;
use crate::oci::digest::Digest;
use crate::oci::files::Files;

/// The files are checked at most once in this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The policy files of a node.
#[derive(Debug)]
pub(in crate::trust) struct Policies {
    file: Option<PathBuf>,
    directory: Option<PathBuf>,
    kept: Mutex<HashMap<PathBuf, Arc<Mutex<CachedPolicy>>>>,
}

/// The governing policy.
#[derive(Debug, Clone)]
pub(in crate::trust) enum Governing {
    /// No policy file governs this namespace.
    Nothing,
    /// A usable policy.
    Policy {
        /// The policy.
        policy: Arc<Policy>,
        /// Digest over its text and all files that it names.
        digest: Digest,
    },
    /// A policy that cannot be used.
    Broken {
        /// Its file, if it is known.
        file: Option<PathBuf>,
        /// What is wrong.
        why: String,
    },
}

#[derive(Debug)]
struct CachedPolicy {
    checked: Instant,
    files: Files,
    policy: Result<Arc<Policy>, PolicyError>,
}

impl Policies {
    /// Policies at these places. Reads nothing yet.
    pub(in crate::trust) fn new(file: Option<PathBuf>, directory: Option<PathBuf>) -> Self {
        Self { file, directory, kept: Mutex::default() }
    }

    /// The policy that governs `namespace`: its own file in the directory, or else the general file.
    pub(in crate::trust) fn governing(&self, namespace: Option<&str>) -> Governing {
        let file = match (&self.directory, namespace) {
            (Some(directory), Some(namespace)) => match own_file(directory, namespace) {
                Ok(own) => own.or_else(|| self.file.clone()),
                Err(why) => return Governing::Broken { file: None, why },
            },
            _ => self.file.clone(),
        };
        file.map_or(Governing::Nothing, |file| self.at(file))
    }

    /// The policies of all namespaces that have one of their own. Where they cannot be listed there are none: then no
    /// pod has a policy.
    pub(in crate::trust) fn of_namespaces(&self) -> Vec<Governing> {
        let listed = self.directory.as_deref().and_then(|directory| std::fs::read_dir(directory).ok());
        let files = listed.into_iter().flatten().flatten().map(|entry| entry.path());
        let own = files.filter(|file| {
            let name = file.file_stem().and_then(|name| name.to_str());
            file.extension().is_some_and(|extension| extension == "json") && name.is_some_and(is_label)
        });
        own.map(|file| self.at(file)).collect()
    }

    /// The policy in `file`.
    fn at(&self, file: PathBuf) -> Governing {
        // The map is locked only briefly; each file has a lock of its own for reading.
        let kept = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                kept.entry(file.clone())
                    .or_insert_with(|| Arc::new(Mutex::new(CachedPolicy::load(&file, None)))),
            )
        };
        // One caller reads the files; the others wait for its result.
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.refresh(&file);
        match &kept.policy {
            Ok(policy) => Governing::Policy { policy: Arc::clone(policy), digest: kept.files.digest() },
            Err(error) => Governing::Broken { file: Some(file), why: error.to_string() },
        }
    }
}

/// The policy file of a namespace, if it has one.
fn own_file(directory: &Path, namespace: &str) -> Result<Option<PathBuf>, String> {
    if !is_label(namespace) {
        let namespace = printable(namespace);
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
    // A label contains no slash and no dot, so the name stays inside the directory.
    let file = directory.join(format!("{namespace}.json"));
    // Without following links: a dangling link is a broken policy, not a missing one.
    match std::fs::symlink_metadata(&file) {
        Ok(_) => Ok(Some(file)),
        // If the whole directory is missing, a mount is missing. That must not select the general policy.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match std::fs::read_dir(directory) {
            Ok(_) => Ok(None),
            Err(error) => Err(cannot(directory, error)),
        },
        Err(error) => Err(cannot(&file, error)),
    }
}

/// A DNS label (RFC 1123), as Kubernetes requires for namespaces.
fn is_label(name: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inside)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl CachedPolicy {
    /// Reads the policy and its files. An error equal to the one `before` is not logged again.
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
        Self { checked: Instant::now(), files, policy: policy.map(Arc::new) }
    }

    /// Reads the files again if they have changed.
    fn refresh(&mut self, file: &Path) {
        if self.checked.elapsed() < CHECK_INTERVAL {
            return;
        }
        // One change reloads everything: the digest covers all files.
        if self.files.changed() {
            *self = Self::load(file, self.policy.as_ref().err());
        }
        self.checked = Instant::now();
    }
}
