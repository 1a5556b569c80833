//! `prune`: removes what nothing needs; or says what would go, what stays, and why.

use std::time::Duration;

use serde::Serialize;

use super::args::{Output, WatermarkArgs};
use super::output::{self, bytes, count};
use super::store;
use super::why;
use crate::app::engine::Engine;
use crate::image::store::gc::Policy;
use crate::image::store::{CollectRequest, Collected, Explained, ImageRecord, Removal, Why};
use crate::oci::digest::Digest;

#[derive(Serialize)]
struct Pruned {
    images: Vec<ImageRecord>,
    /// Why each of these.
    removals: Vec<Removal>,
    objects: u64,
    layers: u64,
    bytes: u64,
    dry_run: bool,
}

/// What `--dry-run` says.
#[derive(Serialize)]
struct Planned {
    /// What would be removed, in this order.
    images: Vec<ImageRecord>,
    /// Why each of these.
    removals: Vec<Removal>,
    /// What stays.
    stays: Vec<Stays>,
    /// Bytes that the removal of these images frees. What no image needs goes, too.
    bytes: u64,
    dry_run: bool,
}

#[derive(Serialize)]
struct Stays {
    image: String,
    key: Digest,
    /// What keeps it; empty where there is room for it.
    kept: Vec<Why>,
}

/// What goes: all that nothing needs, or what the marks say. Where the operator asks for the removal, an image used a moment
/// ago is protected only if that is asked for, too.
///
/// # Errors
/// The marks contradict each other.
pub fn policy(marks: Option<&WatermarkArgs>, min_age: Duration, min_free: u8) -> anyhow::Result<Policy> {
    let Some(marks) = marks else { return Ok(Policy::Unneeded { min_age }) };
    let (high, low) = marks.percents(min_free)?;
    Ok(Policy::Watermarks { high, low, min_age, recent: min_age, idle_bytes: marks.idle_bytes() })
}

/// `prune`.
pub fn prune(engine: &Engine, policy: Policy, dry_run: bool, output: Output) -> anyhow::Result<()> {
    let mounted = || engine.mounted_images().map_err(|error| error.to_string());
    // First: what is explained is what is then found to go.
    let explained = if dry_run { engine.store.explain(&mounted)? } else { Vec::new() };
    let collected = engine.store.collect(&CollectRequest { policy, mounted: &mounted, dry_run })?;
    if dry_run {
        return output::show(output, &planned(collected, explained), Planned::text);
    }
    let pruned = Pruned {
        images: collected.images,
        removals: collected.removals,
        objects: collected.swept.objects,
        layers: collected.swept.layers,
        bytes: collected.swept.bytes,
        dry_run,
    };
    output::show(output, &pruned, |p| {
        let removed = |(image, removal): (&ImageRecord, &Removal)| {
            let why = match removal.frees_bytes {
                // All went, and nobody reckoned.
                0 => String::new(),
                _ => format!(": {}", reason(removal)),
            };
            format!("removed {} {}{why}\n", image.key().short(), image.names.join(" "))
        };
        let lines: String = p.images.iter().zip(&p.removals).map(removed).collect();
        format!(
            "{lines}{}, {} and {} removed, {} freed\n",
            count(p.images.len() as u64, "image"),
            count(p.layers, "layer"),
            count(p.objects, "object"),
            bytes(p.bytes)
        )
    })
}

fn planned(collected: Collected, explained: Vec<Explained>) -> Planned {
    let Collected { images, removals, .. } = collected;
    let goes = |key: &Digest| images.iter().any(|image| image.key() == *key);
    let stays = explained.into_iter().filter(|image| !goes(&image.record.key())).map(|image| Stays {
        image: store::name(&image.record),
        key: image.record.key(),
        kept: image.kept,
    });
    let bytes = removals.iter().map(|removal| removal.frees_bytes).sum();
    Planned { bytes, stays: stays.collect(), images, removals, dry_run: true }
}

/// What is gained and lost by it.
fn reason(removal: &Removal) -> String {
    let idle = store::age(Duration::from_secs(removal.idle_seconds));
    let again = match removal.refetch_bytes {
        0 => "nothing to be fetched again".to_owned(),
        refetch => format!("{} of files to be fetched again", bytes(refetch)),
    };
    format!("last used {idle}, frees {}, {again}", bytes(removal.frees_bytes))
}

impl Planned {
    fn text(&self) -> String {
        let mut text = String::new();
        for (image, removal) in self.images.iter().zip(&self.removals) {
            let why = reason(removal);
            text.push_str(&format!("would remove {} {}: {why}\n", image.key().short(), store::name(image)));
        }
        for image in &self.stays {
            let kept: Vec<String> = image.kept.iter().map(why::reason).collect();
            let why = if kept.is_empty() { "there is room for it".to_owned() } else { kept.join(", ") };
            text.push_str(&format!("stays        {} {}: {why}\n", image.key.short(), image.image));
        }
        text.push_str(&format!(
            "{} would be removed, {} freed\n",
            count(self.images.len() as u64, "image"),
            bytes(self.bytes)
        ));
        text
    }
}
