//! Looking at what one call waits for, again and again while it waits.

use std::time::Instant;

use super::{PodEvents, Reason};
use crate::image::pull::Watch;
use crate::oci::Wait;
use crate::volume::attributes::PodInfo;
use crate::volume::id::VolumeId;

/// Follows the request of one call.
#[derive(Debug)]
pub struct Follower<'a> {
    pub(super) pod_events: &'a PodEvents,
    pub(super) volume: &'a VolumeId,
    pub(super) pod: &'a PodInfo,
    pub(super) image: &'a str,
    pub(super) watch: &'a Watch,
    /// The end of the last wait that was told.
    pub(super) told: Option<Instant>,
}

impl Follower<'_> {
    /// Tells what is new since the last look.
    pub(in crate::node::volume) fn look(&mut self) {
        if let Some(pull) = self.watch.get() {
            self.pod_events.pulling(self.volume, self.pod, self.image, pull);
        }
        if let Some(wait) = self.watch.waits().filter(|wait| self.told.is_none_or(|told| told < wait.until)) {
            self.pod_events.report(self.pod, self.volume, Reason::RateLimited, text(self.image, &wait));
            self.told = Some(wait.until);
        }
    }
}

fn text(image: &str, wait: &Wait) -> String {
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
        let text = text("r.io/x:1", &Wait { host: "auth.r.io".to_owned(), until });
        assert!(text.starts_with("auth.r.io limits the rate") && text.contains("image r.io/x:1"), "{text}");
        assert!(text.contains("the next try comes in 30 s"), "{text}");
    }
}
