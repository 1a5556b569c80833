//! Commands about the store: `ls`, `pin`, `unpin`, `prune`.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use super::stored::Stored;
use crate::app::engine::Engine;
use crate::image::store::gc::Policy;
use crate::image::store::{CollectRequest, ImageRecord};
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

impl Row {
    fn cells(&self) -> Vec<String> {
        let used = match (self.mounted, self.pinned) {
            (true, true) => "mounted, pinned",
            (true, false) => "mounted",
            (false, true) => "pinned",
            (false, false) => "",
        };
        let since = Duration::from_secs(self.last_used);
        let ago = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(since);
        vec![
            name(&self.record),
            self.key.short(),
            bytes(self.total_bytes),
            bytes(self.alone_bytes),
            bytes(self.shared_bytes),
            self.record.inodes.to_string(),
            used.to_owned(),
            age(ago),
        ]
    }
}

/// What an image is called, and what it has of that.
fn name(record: &ImageRecord) -> String {
    let name = record.names.first().cloned().unwrap_or_default();
    match &record.choice {
        all if all.is_all() => name,
        choice => format!("{name} ({})", text::one_line(&choice.to_string())),
    }
}

fn age(ago: Duration) -> String {
    let seconds = ago.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7_199 => format!("{} min ago", seconds / 60),
        7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// `pin IMAGE` and `unpin IMAGE`.
pub async fn pin(engine: &Engine, stored: Stored, keep: bool, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Pin {
        manifest: Digest,
        pinned: bool,
    }
    let manifest = if keep {
        let ready = stored.find(engine, output).await?;
        engine.store.pin(&ready.record.key())?;
        ready.record.key()
    } else {
        let manifest = stored.find_pinned(engine, output).await?;
        engine.store.pins().remove(&manifest)?;
        manifest
    };
    output::show(output, &Pin { manifest, pinned: keep }, |pin| {
        format!("{} is {}", pin.manifest, if pin.pinned { "pinned" } else { "no longer pinned" })
    })
}

/// `prune`.
pub fn prune(
    engine: &Engine,
    watermarks: Option<(u8, u8)>,
    dry_run: bool,
    output: Output,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Pruned {
        images: Vec<ImageRecord>,
        objects: u64,
        layers: u64,
        bytes: u64,
        dry_run: bool,
    }
    // The operator asked for the removal: an image used a moment ago is not protected.
    let min_age = Duration::ZERO;
    let policy = match watermarks {
        None => Policy::Unneeded { min_age },
        Some((high, low)) => Policy::Watermarks { high, low, min_age, recent: min_age },
    };
    let mounted = || engine.mounted_images().map_err(|error| error.to_string());
    let collected = engine.store.collect(&CollectRequest { policy, mounted: &mounted, dry_run })?;
    let pruned = Pruned {
        images: collected.images,
        objects: collected.swept.objects,
        layers: collected.swept.layers,
        bytes: collected.swept.bytes,
        dry_run,
    };
    output::show(output, &pruned, |p| {
        let mut text = String::new();
        for image in &p.images {
            let verb = if p.dry_run { "would remove" } else { "removed" };
            text.push_str(&format!("{verb} {} {}\n", image.key().short(), image.names.join(" ")));
        }
        // A dry run does not know the sizes: objects are counted when they are removed.
        if p.dry_run {
            text.push_str(&format!("{} would be removed\n", count(p.images.len() as u64, "image")));
        } else {
            text.push_str(&format!(
                "{}, {} and {} removed, {} freed\n",
                count(p.images.len() as u64, "image"),
                count(p.layers, "layer"),
                count(p.objects, "object"),
                bytes(p.bytes)
            ));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        for (seconds, shown) in [
            (0, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7_200, "2 h ago"),
            (200_000, "2 days ago"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), shown);
        }
    }
}
