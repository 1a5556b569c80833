//! A value that is made of files and made again when they change, as a rotated password or certificate authority needs.
//!
//! There is no file watcher, since nothing may wake an idle plugin: whoever needs the value looks at the files, at most
//! once a second, with one stat(2) each. Secrets and ConfigMaps are mounted as links that are swapped, which shows as
//! another inode. If the files are no good (half-written, or gone), the last good value stays in use and an error is
//! logged, once for each reason.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::SourceError;
use super::files::Files;

/// The files are looked at at most once in this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A value made of files.
#[derive(Debug)]
pub(super) struct Followed<T> {
    /// What the value is, for the log.
    what: &'static str,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    checked: Instant,
    files: Files,
    value: Arc<T>,
    /// Why the files as they are now cannot be used, if so.
    refused: Option<String>,
}

impl<T> Followed<T> {
    /// Makes the value for the first time. `make` reads its files through the argument.
    ///
    /// # Errors
    /// Those of `make`: a process does not start with files that are no good.
    pub(super) fn new(
        what: &'static str,
        make: impl FnOnce(&mut Files) -> Result<T, SourceError>,
    ) -> Result<Self, SourceError> {
        let mut files = Files::default();
        let value = Arc::new(make(&mut files)?);
        let state = State { checked: Instant::now(), files, value, refused: None };
        Ok(Self { what, state: Mutex::new(state) })
    }

    /// The value, made again by `make` if a file has changed.
    pub(super) fn current(&self, make: impl FnOnce(&mut Files) -> Result<T, SourceError>) -> Arc<T> {
        // Each change of the state is complete before the next step, so a poisoned one is consistent.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= CHECK_INTERVAL {
            if state.files.changed() {
                self.renew(&mut state, make);
            }
            state.checked = Instant::now();
        }
        Arc::clone(&state.value)
    }

    fn renew(&self, state: &mut State<T>, make: impl FnOnce(&mut Files) -> Result<T, SourceError>) {
        let mut files = Files::default();
        let made = make(&mut files);
        // Also after a failure: the next change is looked for from here.
        state.files = files;
        match made {
            Ok(value) => {
                state.value = Arc::new(value);
                state.refused = None;
                tracing::info!("{} have changed and were read again", self.what);
            }
            Err(error) => {
                let why = error.to_string();
                if state.refused.as_ref() != Some(&why) {
                    tracing::error!("{why}; until this is repaired, {} from before stay in use", self.what);
                }
                state.refused = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn number(path: &Path) -> impl FnOnce(&mut Files) -> Result<u32, SourceError> {
        let refuse = |detail: String| SourceError::Settings { detail };
        move |files| {
            let bytes = files.read(path).map_err(|error| refuse(error.to_string()))?;
            String::from_utf8_lossy(&bytes).parse().map_err(|_| refuse("no number".to_owned()))
        }
    }

    #[test]
    fn the_last_good_value_stays_until_there_is_a_better_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("n");
        assert!(Followed::new("numbers", number(&path)).is_err(), "not at the start");
        std::fs::write(&path, "1").unwrap();
        let followed = Followed::new("numbers", number(&path)).unwrap();
        let later = || {
            followed.state.lock().unwrap().checked -= CHECK_INTERVAL;
            *followed.current(number(&path))
        };
        for (content, expected) in [("2", 2), ("", 2), ("x", 2), ("3", 3)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(later(), expected, "{content:?}");
            let good = content.parse::<u32>().is_ok();
            assert_eq!(followed.state.lock().unwrap().refused.is_none(), good, "{content:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(later(), 3);
        std::fs::write(&path, "4").unwrap();
        assert_eq!(*followed.current(number(&path)), 3, "looked at once a second");
        assert_eq!(later(), 4);
    }
}
