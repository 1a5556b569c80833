//! Watches the pull that one call waits for, and records its changes as events.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{EventReason, PodEvents};
use crate::oci::Wait;
use crate::pull::Watch;
use crate::volume::attributes::PodInfo;
use crate::volume::id::VolumeId;

/// Watches the pull of one call.
#[derive(Debug)]
pub(crate) struct PullWatcher<'a> {
    pub(super) pod_events: &'a PodEvents,
    pub(super) volume: &'a VolumeId,
    pub(super) pod: &'a PodInfo,
    pub(super) image: &'a str,
    pub(super) watch: &'a Watch,
    /// The end of the last rate limit that was recorded.
    pub(super) reported_until: Option<Instant>,
}

impl PullWatcher<'_> {
    /// Records what is new since the last call.
    pub(in crate::node::volume) fn record_changes(&mut self) {
        if let Some(pull) = self.watch.get() {
            self.pod_events.pull_goes_on(self.volume, self.pod, self.image, pull, Instant::now());
        }
        // One event per wait; a registry that extends its limit gets another one.
        if let Some(wait) =
            self.watch.waits().filter(|wait| self.reported_until.is_none_or(|until| until < wait.until))
        {
            self.pod_events.record(
                self.pod,
                self.volume,
                EventReason::RateLimited,
                rate_limit_text(self.image, &wait),
            );
            self.reported_until = Some(wait.until);
        }
    }
}

impl Drop for PullWatcher<'_> {
    fn drop(&mut self) {
        self.pod_events.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

fn rate_limit_text(image: &str, wait: &Wait) -> String {
    format!(
        "{} limits the rate of requests, and image {image} waits: the next try comes in {} s; use credentials with a \
         higher limit, or a mirror, if this lasts",
        wait.host,
        wait.left().as_secs_f64().ceil(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_is_told_with_who_wants_it_and_until_when() {
        let until = Instant::now() + Duration::from_secs(30);
        let text = rate_limit_text("r.io/x:1", &Wait { host: "auth.r.io".to_owned(), until });
        assert!(text.starts_with("auth.r.io limits the rate") && text.contains("image r.io/x:1"), "{text}");
        assert!(text.contains("the next try comes in 30 s"), "{text}");
    }
}
