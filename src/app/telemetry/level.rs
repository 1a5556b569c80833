//! The log's level from a file that is re-read, such as a key of a mounted ConfigMap: an operator turns on
//! `debug` for a node that misbehaves, without restarting the plugin that misbehaves, and without a port that
//! anybody could write to.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::parse;

/// How often the file is read: all that wakes an idle plugin, so not more often than it matters. Kubelet takes up to a
/// minute to bring a changed ConfigMap.
const EVERY: Duration = Duration::from_secs(15);
/// Filters are short; whatever is longer is not one.
const MAX: usize = 4096;

/// A file with a filter, and what it sets.
#[derive(Debug)]
pub struct LevelFile {
    path: PathBuf,
    /// Used as long as the file is missing or empty.
    usual: String,
    /// What was read last.
    seen: String,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LevelFile {
    /// Sets by `handle` what `path` says, and `usual` where it says nothing.
    pub fn new(path: PathBuf, usual: String, handle: reload::Handle<EnvFilter, Registry>) -> Self {
        Self { path, seen: usual.clone(), usual, handle }
    }

    /// Re-reads the file until the shutdown.
    pub async fn follow(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let read = tokio::fs::read_to_string(&self.path).await;
            self.apply(read);
        }
    }

    /// Sets the level if the file says another one than last time.
    fn apply(&mut self, read: io::Result<String>) {
        let wanted = match read {
            Ok(text) if text.trim().is_empty() => self.usual.clone(),
            Ok(text) => text.trim().chars().take(MAX).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.usual.clone(),
            // Unreadable for a moment; the level stays.
            Err(_) => return,
        };
        if wanted == self.seen {
            return;
        }
        self.seen.clone_from(&wanted);
        let changed = parse(&wanted)
            .map_err(|error| error.to_string())
            .and_then(|filter| self.handle.reload(filter).map_err(|error| error.to_string()));
        match changed {
            Ok(()) => tracing::info!(level = wanted, "the log level was changed"),
            Err(why) => tracing::warn!("{} is ignored: {why}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_rules_as_long_as_it_says_something() {
        let (_filter, handle) = reload::Layer::new(parse("info").unwrap());
        let current = handle.clone();
        let mut level = LevelFile::new("/level".into(), "info".to_owned(), handle);
        let mut after = |read| {
            level.apply(read);
            current.with_current(ToString::to_string).unwrap()
        };
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(after(ok("composefs_csi=debug\n")), "composefs_csi=debug");
        assert_eq!(after(ok("loud=very")), "composefs_csi=debug", "nonsense changes nothing");
        assert_eq!(after(Err(io::ErrorKind::PermissionDenied.into())), "composefs_csi=debug");
        assert_eq!(after(Err(io::ErrorKind::NotFound.into())), "info");
        assert_eq!(after(ok("warn")), "warn");
        assert_eq!(after(ok(" \n")), "info");
    }
}
