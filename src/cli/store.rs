//! What is in the store: `ls`, and `store du`, which draws it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use crate::app::engine::Engine;
use crate::image::store::ImageRecord;
use crate::integrity::Integrity;
use crate::oci::digest::Digest;
use crate::text;

/// One line of `ls`.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    record: ImageRecord,
    /// By what the store knows it: the manifest, or a choice of it.
    key: Digest,
    /// Bytes on disk that this image uses.
    total_bytes: u64,
    /// Bytes that no other image uses: what its removal frees.
    alone_bytes: u64,
    /// Bytes that other images use too.
    shared_bytes: u64,
    pinned: bool,
    mounted: bool,
    /// Some of it is damaged, and it is given to nobody before it was fetched again.
    quarantined: bool,
    /// Seconds since 1970.
    last_used: u64,
}

#[derive(Debug, Serialize)]
struct Listing {
    images: Vec<Row>,
    /// Objects in the store.
    objects: u64,
    /// Disk space of all objects, in bytes.
    allocated_bytes: u64,
    /// Bytes of content that is stored once and belongs to several images, for each image but one.
    saved_bytes: u64,
    integrity: Integrity,
}

/// `ls`.
pub fn ls(engine: &Engine, output: Output) -> anyhow::Result<()> {
    let listing = survey(engine)?;
    output::show(output, &listing, |listing| {
        let heading = ["IMAGE", "MANIFEST", "SIZE", "ALONE", "SHARED", "FILES", "USE", "LAST USED"];
        let mut rows = vec![heading.map(String::from).to_vec()];
        rows.extend(listing.images.iter().map(Row::cells));
        let mut text = output::table(&rows, &[2, 3, 4, 5], output::width());
        let objects = count(listing.objects, "object");
        let takes = if listing.objects == 1 { "takes" } else { "take" };
        let (taken, saved) = (bytes(listing.allocated_bytes), bytes(listing.saved_bytes));
        text.push_str(&format!("{objects} {takes} {taken} on disk; sharing saves {saved}\n"));
        text
    })
}

fn survey(engine: &Engine) -> anyhow::Result<Listing> {
    let usage = engine.store.usage()?;
    let mut sizes: HashMap<_, _> = usage.images.iter().map(|image| (image.manifest, *image)).collect();
    let pins = engine.store.pins().list()?;
    let mounted = engine.mounted_images()?.all();
    let damaged = engine.store.damaged()?;
    let listed = engine.store.images().list()?;
    // Listing is still useful if one record is damaged.
    for unreadable in &listed.unreadable {
        tracing::warn!(error = %unreadable, "an image record cannot be read");
    }
    let rows = listed.images.into_iter().filter_map(|image| {
        // Without sizes, it was pulled after they were counted.
        let size = sizes.remove(&image.record.key())?;
        let since = image.last_used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(Row {
            pinned: pins.contains(&image.record.key()),
            mounted: image.record.is_any_of(&mounted),
            quarantined: damaged.iter().any(|mark| mark.images.contains(&image.record.key())),
            total_bytes: size.total,
            alone_bytes: size.alone,
            shared_bytes: size.shared(),
            last_used: since.as_secs(),
            key: image.record.key(),
            record: image.record,
        })
    });
    Ok(Listing {
        images: rows.collect(),
        objects: usage.objects,
        allocated_bytes: usage.allocated,
        saved_bytes: usage.saved,
        integrity: engine.store.integrity(),
    })
}

/// Width of the picture of an image's size, in columns.
const BAR: usize = 30;

/// `store du`.
pub fn du(engine: &Engine, output: Output) -> anyhow::Result<()> {
    let mut listing = survey(engine)?;
    listing.images.sort_by_key(|row| std::cmp::Reverse((row.total_bytes, row.key)));
    let width = output::width();
    output::show(output, &listing, |listing| {
        let largest = listing.images.iter().map(|row| row.total_bytes).max().unwrap_or(0);
        let mut rows = vec![["IMAGE", "SIZE", "ALONE", "SHARED", ""].map(String::from).to_vec()];
        rows.extend(listing.images.iter().map(|row| {
            let size = [row.total_bytes, row.alone_bytes, row.shared_bytes].map(bytes);
            let picture = width.map_or_else(String::new, |_| bar(row.alone_bytes, row.shared_bytes, largest));
            [vec![name(&row.record)], size.to_vec(), vec![picture]].concat()
        }));
        let mut text = output::table(&rows, &[1, 2, 3], width);
        let sum: u64 = listing.images.iter().map(|row| row.total_bytes).sum();
        let (objects, images) =
            (count(listing.objects, "object"), count(listing.images.len() as u64, "image"));
        text.push_str(&format!(
            "{images}, {} if each had its own files; {objects} on disk, {}; sharing saves {}\n",
            bytes(sum),
            bytes(listing.allocated_bytes),
            bytes(listing.saved_bytes)
        ));
        text
    })
}

/// What an image has alone, and what it shares, of the largest one's size. What there is of either is seen.
pub(super) fn bar(alone: u64, shared: u64, largest: u64) -> String {
    let columns = |part: u64| {
        let exact = u128::from(part) * BAR as u128 / u128::from(largest.max(1));
        usize::try_from(exact).unwrap_or(BAR).max(usize::from(part > 0))
    };
    format!("{}{}", "█".repeat(columns(alone)), "░".repeat(columns(shared)))
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let uses = [(self.mounted, "mounted"), (self.pinned, "pinned"), (self.quarantined, "quarantined")];
        let used: Vec<&str> = uses.into_iter().filter(|(is_so, _)| *is_so).map(|(_, use_)| use_).collect();
        vec![
            name(&self.record),
            self.key.short(),
            bytes(self.total_bytes),
            bytes(self.alone_bytes),
            bytes(self.shared_bytes),
            self.record.inodes.to_string(),
            used.join(", "),
            age(since(self.last_used)),
        ]
    }
}

/// What an image is called, and what it has of that.
pub(super) fn name(record: &ImageRecord) -> String {
    let name = record.names.first().cloned().unwrap_or_default();
    match &record.choice {
        all if all.is_all() => name,
        choice => format!("{name} ({})", text::one_line(&choice.to_string())),
    }
}

/// How long something is ago.
pub(super) fn age(ago: Duration) -> String {
    format!("{} ago", span(ago))
}

/// A length of time, in the unit that reads best, to the nearest.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", (seconds + 30) / 60),
        7_200..=172_799 => format!("{} h", (seconds + 1_800) / 3_600),
        _ => format!("{} days", seconds.saturating_add(43_200) / 86_400),
    }
}

/// How long the moment is ago that lies so many seconds after 1970.
pub(super) fn since(seconds: u64) -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_both_parts() {
        assert_eq!(bar(10, 20, 30), "█".repeat(10) + &"░".repeat(20));
        assert_eq!((bar(0, 0, 0), bar(1, 1, 1 << 50)), (String::new(), "█░".into()));
        assert_eq!(bar(0, u64::MAX, u64::MAX), "░".repeat(BAR));
    }

    #[test]
    fn ages_read_well() {
        for (seconds, shown) in [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_200, "2 h ago"),
            (200_000, "2 days ago"),
            (30 * 86_400 - 1, "30 days ago"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), shown);
        }
    }
}
