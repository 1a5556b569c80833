//! containerd's verifier directory (docs/image-verification.md of containerd 2): programs that say whether an
//! image may be used, for every kind of signature that this driver does not know.
//!
//! Every program in the directory runs as `PROGRAM -name NAME -digest DIGEST -stdin-media-type TYPE`, with the
//! image's OCI descriptor on standard input. Exit code 0 allows the image, anything else does not, and all must
//! allow it. Different from containerd, which skips programs beyond a number and takes a missing or empty
//! directory for consent: whatever cannot be asked here does not consent.
//!
//! A verdict is good for [`FRESH`], for the same programs, name and digest, so that fifty pods that start at once
//! ask once. This is the only module that may start programs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

mod directory;
mod program;

use directory::Program;
pub use directory::VerifierError;
use program::Ended;

/// How long a verdict is good for.
const FRESH: Duration = Duration::from_secs(30);
/// Verdicts kept at a time.
const KEPT_MAX: usize = 1024;
/// The media type of what stands on standard input.
const DESCRIPTOR: &str = "application/vnd.oci.descriptor.v1+json";

/// What the programs are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The image's reference.
    pub name: String,
    /// The digest that the reference resolved to.
    pub digest: String,
    /// The OCI descriptor of that digest, JSON.
    pub descriptor: String,
}

/// What one program says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The program's file name.
    pub program: String,
    /// The reason that it gives for allowing the image, or why it does not allow it.
    pub result: Result<String, String>,
}

/// The programs of one directory.
#[derive(Debug)]
pub struct Verifiers {
    directory: PathBuf,
    timeout: Duration,
    kept: Mutex<HashMap<Key, Slot>>,
}

type Key = (Vec<Program>, Question);
/// Whoever holds it is asking; the others wait for what it finds.
type Slot = Arc<Mutex<Option<(Instant, Vec<Verdict>)>>>;

impl Verifiers {
    /// The programs in `directory`, each of which may take `timeout`.
    pub fn new(directory: PathBuf, timeout: Duration) -> Self {
        Self { directory, timeout, kept: Mutex::default() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Asks all programs. Blocks until the slowest has answered or its time is up.
    ///
    /// # Errors
    /// The directory cannot be used. What a program says, or that it fails, is a verdict.
    pub fn ask(&self, question: &Question) -> Result<Vec<Verdict>, VerifierError> {
        let programs = directory::programs(&self.directory)?;
        let slot = self.slot((programs.clone(), question.clone()));
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, verdicts)) = &*slot
            && when.elapsed() < FRESH
        {
            return Ok(verdicts.clone());
        }
        let verdicts = self.run(&programs, question);
        *slot = Some((Instant::now(), verdicts.clone()));
        Ok(verdicts)
    }

    fn slot(&self, key: Key) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            // Those in use stay with their users.
            kept.retain(|_, slot| {
                slot.try_lock()
                    .map_or(true, |slot| slot.as_ref().is_none_or(|(when, _)| when.elapsed() < FRESH))
            });
            if kept.len() >= KEPT_MAX {
                kept.clear();
            }
        }
        Arc::clone(kept.entry(key).or_default())
    }

    /// All at once: the time is the slowest one's, not the sum.
    fn run(&self, programs: &[Program], question: &Question) -> Vec<Verdict> {
        let arguments =
            ["-name", &question.name, "-digest", &question.digest, "-stdin-media-type", DESCRIPTOR];
        let input = question.descriptor.as_bytes();
        let ask = |program: &Program| {
            let ended = program::run(&program.path, &arguments, input, self.timeout);
            verdict(program, ended, self.timeout)
        };
        std::thread::scope(|scope| {
            let asked: Vec<_> = programs.iter().map(|p| (p, scope.spawn(|| ask(p)))).collect();
            let answer = |(program, thread): (&Program, std::thread::ScopedJoinHandle<'_, Verdict>)| {
                let lost =
                    |_| Verdict { program: program.name(), result: Err("asking it failed".to_owned()) };
                thread.join().unwrap_or_else(lost)
            };
            asked.into_iter().map(answer).collect()
        })
    }
}

fn verdict(program: &Program, ended: Result<Ended, std::io::Error>, timeout: Duration) -> Verdict {
    let path = program.path.display();
    let result = match ended {
        Err(error) => {
            Err(format!("cannot be run ({path}): {error}; make it an executable that this system runs"))
        }
        Ok(Ended { code: None, signal: None, .. }) => {
            Err(format!("did not answer within {} seconds and was ended", timeout.as_secs_f32()))
        }
        Ok(Ended { signal: Some(signal), .. }) => Err(format!("was ended by signal {signal}")),
        Ok(Ended { code: Some(0), output, .. }) => Ok(reason(&output)),
        Ok(Ended { code: Some(code), output, .. }) => Err(match reason(&output) {
            reason if reason.is_empty() => format!("refused with exit code {code} and gave no reason"),
            reason => format!("refused: {reason}"),
        }),
    };
    Verdict { program: program.name(), result }
}

/// The first line of what it printed, fit for a log.
fn reason(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests;
