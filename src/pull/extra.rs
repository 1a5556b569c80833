//! Connections of a layer beyond the one that comes with its turn: a node lends them from one budget, whatever they bring.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::turns::Tenant;
use crate::fair::Pass;

/// How long an extra connection lasts while others want it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The right to an extra connection. Dropped, another has it.
#[derive(Debug)]
pub(super) struct Extra {
    pass: Pass<Tenant>,
    since: Instant,
}

impl Extra {
    /// The right that the pass is, from now on.
    pub(super) fn new(pass: Pass<Tenant>) -> Self {
        Self { pass, since: Instant::now() }
    }

    /// Waits until another registry or credential needs the connection, which has lasted for long.
    pub(super) async fn must_give_way(&self) {
        sleep_until(self.since + PATIENCE).await;
        while !self.pass.is_wanted_by_others() {
            sleep(PATIENCE / 5).await;
        }
    }
}
