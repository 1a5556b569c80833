//! The log level from a file that is read again and again, such as a key of a mounted ConfigMap. An operator can
//! turn on `debug` on a node without restarting its plugin, and no writable port is needed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::filter::parse;

/// How often the file is read. Nothing else wakes an idle plugin, so this is rare; the kubelet takes up to a minute
/// to update a ConfigMap anyway.
const READ_INTERVAL: Duration = Duration::from_secs(15);
/// The longest filter, in characters.
const FILTER_MAX: usize = 4096;

/// A file with a filter, and the subscriber that uses the filter.
#[derive(Debug)]
pub struct LevelFile {
    path: PathBuf,
    /// Used while the file is missing or empty.
    default: String,
    /// The filter that was read last.
    seen: String,
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LevelFile {
    /// Sets the filter in `path` through `handle`; `default` applies while the file is missing or empty.
    pub fn new(path: PathBuf, default: String, handle: reload::Handle<EnvFilter, Registry>) -> Self {
        Self { path, seen: default.clone(), default, handle }
    }

    /// Reads the file regularly until the shutdown.
    pub async fn follow(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(READ_INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let read = tokio::fs::read_to_string(&self.path).await;
            self.apply(read);
        }
    }

    /// Sets the filter if it differs from the last one.
    fn apply(&mut self, read: io::Result<String>) {
        let wanted = match read {
            Ok(text) if text.trim().is_empty() => self.default.clone(),
            Ok(text) => text.trim().chars().take(FILTER_MAX).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.default.clone(),
            // Probably unreadable for a moment only; keep the level.
            Err(_) => return,
        };
        if wanted == self.seen {
            return;
        }
        // Before parsing: a malformed filter is reported only once.
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
