//! containerd's verifier directory (docs/image-verification.md of containerd 2): programs that say whether an image
//! may be used. They support signatures of kinds that this driver does not know.
//!
//! Every program in the directory runs as `PROGRAM -name NAME -digest DIGEST -stdin-media-type TYPE`, with the
//! image's OCI descriptor on standard input. Exit code 0 allows the image; any other result refuses it. All programs
//! must allow it. containerd skips programs beyond a limit and allows every image if the directory is missing or
//! empty. Here a program or directory that cannot be used refuses the image.
//!
//! A verdict is cached for [`TTL`], by programs, name and digest, so that fifty pods that start at once run each
//! program once. This is the only module that may start programs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::text::one_line;

mod directory;
mod program;

use directory::Program;
pub(super) use directory::VerifierError;
use program::Ended;

/// How long a verdict is cached.
const TTL: Duration = Duration::from_secs(30);
/// The most cached entries.
const ENTRIES_MAX: usize = 1024;
/// The media type of the standard input.
const DESCRIPTOR: &str = "application/vnd.oci.descriptor.v1+json";

/// What the programs are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The image's reference.
    pub name: String,
    /// The digest that the reference resolved to.
    pub digest: String,
    /// The OCI descriptor of that digest, JSON.
    pub descriptor: String,
}

/// The answer of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramVerdict {
    /// The program's file name.
    pub program: String,
    /// Its reason for allowing the image, or why it does not allow it.
    pub result: Result<String, String>,
}

/// The programs of one directory.
#[derive(Debug)]
pub(super) struct Verifiers {
    directory: PathBuf,
    timeout: Duration,
    kept: Mutex<HashMap<Key, Slot>>,
}

type Key = (Vec<Program>, Question);
/// The holder of the lock runs the programs; other callers wait for its result.
type Slot = Arc<Mutex<Option<(Instant, Vec<ProgramVerdict>)>>>;

impl Verifiers {
    /// The programs in `directory`, each of which may take `timeout`.
    pub(super) fn new(directory: PathBuf, timeout: Duration) -> Self {
        Self { directory, timeout, kept: Mutex::default() }
    }

    /// Runs all programs. Blocks until the slowest has answered or has timed out.
    ///
    /// # Errors
    /// The directory cannot be used. A program that refuses or fails is a verdict, not an error.
    pub(super) fn ask(&self, question: &Question) -> Result<Vec<ProgramVerdict>, VerifierError> {
        let programs = directory::programs(&self.directory)?;
        // Programs are part of the key: a replaced program runs again.
        let slot = self.slot((programs.clone(), question.clone()));
        // Callers with the same question wait here for the first one.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, verdicts)) = &*slot
            && when.elapsed() < TTL
        {
            return Ok(verdicts.clone());
        }
        let verdicts = self.run(&programs, question);
        *slot = Some((Instant::now(), verdicts.clone()));
        Ok(verdicts)
    }

    fn slot(&self, key: Key) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ENTRIES_MAX {
            // Expired entries go first; entries whose programs run (locked) stay.
            kept.retain(|_, slot| {
                slot.try_lock()
                    .map_or(true, |slot| slot.as_ref().is_none_or(|(when, _)| when.elapsed() < TTL))
            });
            if kept.len() >= ENTRIES_MAX {
                kept.clear();
            }
        }
        Arc::clone(kept.entry(key).or_default())
    }

    /// Runs all programs at once: this takes as long as the slowest one, not the sum.
    fn run(&self, programs: &[Program], question: &Question) -> Vec<ProgramVerdict> {
        let arguments =
            ["-name", &question.name, "-digest", &question.digest, "-stdin-media-type", DESCRIPTOR];
        let input = question.descriptor.as_bytes();
        let ask = |program: &Program| {
            let ended = program::run(&program.path, &arguments, input, self.timeout);
            verdict(program, ended, self.timeout)
        };
        std::thread::scope(|scope| {
            let asked: Vec<_> = programs.iter().map(|p| (p, scope.spawn(|| ask(p)))).collect();
            let answer =
                |(program, thread): (&Program, std::thread::ScopedJoinHandle<'_, ProgramVerdict>)| {
                    let lost = |_| ProgramVerdict {
                        program: program.name(),
                        result: Err("could not be run to its end".to_owned()),
                    };
                    thread.join().unwrap_or_else(lost)
                };
            asked.into_iter().map(answer).collect()
        })
    }
}

fn verdict(program: &Program, ended: Result<Ended, std::io::Error>, timeout: Duration) -> ProgramVerdict {
    let path = program.path.display();
    let result = match ended {
        // A program that cannot answer refuses the image.
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
    ProgramVerdict { program: program.name(), result }
}

/// The first line of a program's output, made safe for a log.
fn reason(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let short: String = line.chars().take(300).collect();
    one_line(&short)
}

#[cfg(test)]
mod tests;
