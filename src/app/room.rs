//! What an operator hears when no room can be made on the store's disk: once, then once an hour, and when it is over.

use std::time::{Duration, Instant};

use crate::image::store::{Collected, Space, StoreError};
use crate::kind::Kind;

/// How often the same is said again.
const REPEAT: Duration = Duration::from_secs(3600);

/// Something to say about the room on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The filesystem is above the mark, and nothing can be done about it here.
    NoRoom(String),
    /// That is over.
    Room,
}

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct RoomNotices {
    said: Option<(Want, Instant)>,
}

/// Why there is no room: all is needed, or a round failed in this way.
type Want = Option<Kind>;

impl RoomNotices {
    /// What to say after a round of collection that ended so. `space` is what there is now.
    pub(super) fn after(
        &mut self,
        round: &Result<Collected, StoreError>,
        space: Option<Space>,
        now: Instant,
    ) -> Option<Notice> {
        let want = match round {
            Ok(done) if !done.above_mark => return self.said.take().map(|_| Notice::Room),
            Ok(_) => None,
            Err(error) => Some(error.kind()),
        };
        if self.said.is_some_and(|(said, at)| said == want && now.duration_since(at) < REPEAT) {
            return None;
        }
        self.said = Some((want, now));
        let full = space.map(|space| format!(" ({} % of it is used)", space.percent())).unwrap_or_default();
        Some(Notice::NoRoom(match round {
            Ok(_) => format!(
                "the store's filesystem is above its high mark{full}, and what is left of the store is in use or was used \
                 within the last hour; others use the rest: free some of it, or give the store a filesystem of its own"
            ),
            Err(error) => format!("no room could be made on the store's filesystem{full}: {error}"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::store::gc::Amount;

    fn round(above_mark: bool) -> Result<Collected, StoreError> {
        Ok(Collected { above_mark, ..Collected::default() })
    }

    #[test]
    fn the_same_is_said_once_an_hour_and_the_end_once() {
        let (mut notices, start) = (RoomNotices::default(), Instant::now());
        let amount = |bytes| Amount { bytes, inodes: 0 };
        let space = Some(Space { total: amount(1000), used: amount(914) });
        let minutes = |minutes: u64| start + Duration::from_secs(60 * minutes);
        assert_eq!(notices.after(&round(false), space, start), None);
        let said = notices.after(&round(true), space, start);
        assert!(
            matches!(said, Some(Notice::NoRoom(text)) if text.contains("91 %") && text.contains("free some"))
        );
        assert_eq!(notices.after(&round(true), space, minutes(59)), None);
        assert!(notices.after(&round(true), space, minutes(60)).is_some());
        // Another reason is other news.
        let blocked = Err(StoreError::Blocked("volume record x".to_owned()));
        let said = notices.after(&blocked, space, minutes(61));
        assert!(matches!(said, Some(Notice::NoRoom(text)) if text.contains("volume record x")));
        assert_eq!(notices.after(&blocked, None, minutes(62)), None);
        assert_eq!(notices.after(&round(false), space, minutes(63)), Some(Notice::Room));
        assert_eq!(notices.after(&round(false), space, minutes(64)), None);
    }
}
