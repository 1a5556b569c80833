//! Claims the state directory at the start, and watches it for Probe.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::csi::readiness::{Check, Readiness};
use crate::node::service::NodeService;
use crate::node::state_directory::{StateDirectory, StateDirectoryError};

/// How often a directory that cannot be written to is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A claim of the directory, or why it cannot be written to yet.
pub(super) type Claim = Result<StateDirectory, StateDirectoryError>;

/// Tries to claim the directory.
///
/// # Errors
/// Another plugin works in it. That it cannot be written to is no error of the start: the plugin serves the pods that
/// end meanwhile.
pub(super) fn claim(state: &Path) -> Result<Claim, StateDirectoryError> {
    match StateDirectory::claim(state) {
        Err(error @ StateDirectoryError::Claimed(_)) => Err(error),
        claim => Ok(claim),
    }
}

/// Tries until the directory is claimed; `None` at the shutdown.
///
/// # Errors
/// Another plugin works in it.
pub(super) async fn wait(
    state: &Path,
    mut claim: Claim,
    (node, ready): (&NodeService, &Readiness),
    shutdown: &CancellationToken,
) -> Result<Option<StateDirectory>, StateDirectoryError> {
    let mut logged = false;
    loop {
        let problem = match claim {
            Ok(claimed) => return Ok(Some(claimed)),
            Err(problem) => problem,
        };
        if !logged {
            tracing::error!("{problem}");
            node.serve_without_state();
            logged = true;
        }
        ready.wait_for(problem.to_string());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(RETRY) => {}
        }
        claim = self::claim(state)?;
    }
}

/// The check that Probe makes: each change is logged, once.
pub(super) fn check(state: Arc<StateDirectory>) -> Arc<Check> {
    let sound = AtomicBool::new(true);
    Arc::new(move || {
        let problem = state.check().err().map(|error| error.to_string());
        match (&problem, sound.swap(problem.is_none(), Ordering::Relaxed)) {
            (Some(why), true) => tracing::error!("{why}"),
            (None, false) => tracing::info!("the state directory can be used again"),
            _ => {}
        }
        problem
    })
}
