//! What the removal of images frees, and what it costs to have them again. The decision who goes first is in
//! [`super::gc`]; ADR 0049 has the reasons.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use super::StoreError;
use super::StoredImage;
use super::contents::Contents;
use super::gc::{self, Worth};
use super::parts::images::Images;
use super::sharing::{self, Sharing};
use super::space::Amount;
use crate::oci::digest::Digest;

/// What images are worth, and what each frees in the order of their removal.
#[derive(Debug)]
pub(super) struct Valuation {
    /// When that was so: ages are of this moment.
    pub(super) now: SystemTime,
    of: HashMap<Digest, (Worth, Amount)>,
}

impl Valuation {
    /// Of no image.
    pub(super) fn none() -> Self {
        Self { now: SystemTime::now(), of: HashMap::new() }
    }

    /// What an image is worth, and what it frees once all that go before it have gone; nothing of one that is needed.
    pub(super) fn of(&self, image: &Digest) -> (Worth, Amount) {
        self.of.get(image).copied().unwrap_or_default()
    }

    /// Bytes that are freed when all go that are not needed.
    pub(super) fn idle_bytes(&self) -> u64 {
        self.of.values().map(|(_, frees)| frees.bytes).fold(0, u64::saturating_add)
    }
}

/// What the images that are not `needed` are worth. No other collection runs. Blocking: reads the records of all layers.
///
/// # Errors
/// Those of reading records.
pub(super) fn value(
    images: &Images,
    contents: Contents<'_>,
    needed: &BTreeSet<Digest>,
) -> Result<Valuation, StoreError> {
    let (images, now) = (images.list()?.images, SystemTime::now());
    let records: Vec<_> = images.iter().map(|image| &image.record).collect();
    let sharing = sharing::shared(contents, &records)?;
    let idle: Vec<bool> = records.iter().map(|record| !needed.contains(&record.key())).collect();
    let worth = weigh(&images, &idle, &sharing);
    let frees = frees(&order(&images, &idle, &worth, now), &sharing);
    let keys = records.iter().map(|record| record.key());
    let of = keys.zip(worth.into_iter().zip(frees)).zip(idle).filter(|(_, idle)| *idle);
    Ok(Valuation { now, of: of.map(|(valued, _)| valued).collect() })
}

fn weigh(images: &[StoredImage], idle: &[bool], sharing: &Sharing) -> Vec<Worth> {
    let is_idle = |image: &usize| idle.get(*image) == Some(&true);
    let mut worth = vec![Worth::default(); images.len()];
    for group in sharing.groups.iter().filter(|group| group.images.iter().all(is_idle)) {
        for image in &group.images {
            if let Some(worth) = worth.get_mut(*image) {
                worth.gain += group.room.bytes / group.images.len() as u64;
            }
        }
    }
    for layer in sharing.layers.iter().filter(|layer| layer.images.iter().all(is_idle)) {
        for image in &layer.images {
            // One that is put together of others is put together again.
            let is_fetched = images.get(*image).is_some_and(|image| !image.record.is_combined());
            if let (Some(worth), true) = (worth.get_mut(*image), is_fetched) {
                worth.refetch += layer.bytes / layer.images.len() as u64;
            }
        }
    }
    worth
}

/// The place of each image among those that go, the first that goes has 0; `None` of those that stay.
fn order(images: &[StoredImage], idle: &[bool], worth: &[Worth], now: SystemTime) -> Vec<Option<usize>> {
    let rank = |number: usize| {
        let (image, worth) = (images.get(number)?, worth.get(number)?);
        Some(gc::rank(image.last_used, *worth, &image.record.key(), now))
    };
    let mut going: Vec<usize> = (0..images.len()).filter(|image| idle.get(*image) == Some(&true)).collect();
    going.sort_by_cached_key(|image| rank(*image));
    let mut places = vec![None; images.len()];
    for (place, image) in going.into_iter().enumerate() {
        if let Some(of) = places.get_mut(image) {
            *of = Some(place);
        }
    }
    places
}

/// What each image frees when it goes in its place: the objects that no image has which stays or goes after it.
fn frees(places: &[Option<usize>], sharing: &Sharing) -> Vec<Amount> {
    let mut frees = vec![Amount::default(); places.len()];
    for group in &sharing.groups {
        let places = group.images.iter().map(|image| Some((places.get(*image).copied()??, *image)));
        // The last one to go, if all go.
        let last = places.collect::<Option<Vec<_>>>().and_then(|places| places.into_iter().max());
        if let Some(amount) = last.and_then(|(_, image)| frees.get_mut(image)) {
            *amount += group.room;
        }
    }
    frees
}

#[cfg(test)]
mod tests;
