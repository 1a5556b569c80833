//! `prune`: removes what nothing needs; or says what would go, what stays, and why.

use std::time::Duration;

use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use super::store;
use super::why;
use crate::app::engine::Engine;
use crate::image::store::gc::Policy;
use crate::image::store::{CollectRequest, Explained, ImageRecord, Why};
use crate::oci::digest::Digest;

#[derive(Serialize)]
struct Pruned {
    images: Vec<ImageRecord>,
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

/// `prune`.
pub fn prune(
    engine: &Engine,
    watermarks: Option<(u8, u8)>,
    dry_run: bool,
    output: Output,
) -> anyhow::Result<()> {
    // The operator asked for the removal: an image used a moment ago is not protected.
    let min_age = Duration::ZERO;
    let policy = match watermarks {
        None => Policy::Unneeded { min_age },
        Some((high, low)) => Policy::Watermarks { high, low, min_age, recent: min_age },
    };
    let mounted = || engine.mounted_images().map_err(|error| error.to_string());
    // First: what is explained is what is then found to go.
    let explained = if dry_run { engine.store.explain(&mounted)? } else { Vec::new() };
    let collected = engine.store.collect(&CollectRequest { policy, mounted: &mounted, dry_run })?;
    if dry_run {
        return output::show(output, &planned(collected.images, explained), Planned::text);
    }
    let pruned = Pruned {
        images: collected.images,
        objects: collected.swept.objects,
        layers: collected.swept.layers,
        bytes: collected.swept.bytes,
        dry_run,
    };
    output::show(output, &pruned, |p| {
        let removed =
            |image: &ImageRecord| format!("removed {} {}\n", image.key().short(), image.names.join(" "));
        let lines: String = p.images.iter().map(removed).collect();
        format!(
            "{lines}{}, {} and {} removed, {} freed\n",
            count(p.images.len() as u64, "image"),
            count(p.layers, "layer"),
            count(p.objects, "object"),
            bytes(p.bytes)
        )
    })
}

fn planned(images: Vec<ImageRecord>, explained: Vec<Explained>) -> Planned {
    let goes = |key: &Digest| images.iter().any(|image| image.key() == *key);
    let (go, stay): (Vec<_>, Vec<_>) = explained.into_iter().partition(|image| goes(&image.record.key()));
    let stays = stay.into_iter().map(|image| Stays {
        image: store::name(&image.record),
        key: image.record.key(),
        kept: image.kept,
    });
    Planned { bytes: go.iter().map(|image| image.frees).sum(), stays: stays.collect(), images, dry_run: true }
}

impl Planned {
    fn text(&self) -> String {
        let mut text = String::new();
        for image in &self.images {
            text.push_str(&format!("would remove {} {}\n", image.key().short(), store::name(image)));
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
