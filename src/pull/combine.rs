//! Several images that are here as one. No registry is asked, and no object but the image is written.
//!
//! Each member has been made available to the caller before, by its own reference, credentials and policy; nothing is
//! decided here. What is read is the composefs image of each, by the digest that its record, its seal or a policy has
//! proven: so the combined tree is made of trees that are proven, and its own digest is what this node computes of them
//! ([ADR 0042](../../docs/adr/0042-many-images-in-one-volume.md)).

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::PullError;
use super::build;
use super::error::About as _;
use super::recipe::StoredPart;
use crate::image::composefs::{self, Image, ImageError};
use crate::image::store::{Held, Hold, ImageRecord, Member, Store};
use crate::image::tree::{CheckedTree, Combiner, Rules, Stop, TreeError};
use crate::image::verity::VerityDigest;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::limits::{Cap, ImageLimits};

/// Images to be put into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combination {
    /// What people call it.
    pub name: String,
    /// The images, each with the DiffIDs of its layers.
    pub members: Vec<(Member, Vec<Digest>)>,
}

impl Combination {
    /// What the combined image is called by in the place of a manifest's digest.
    pub fn key(&self) -> Digest {
        Member::key(&self.members().cloned().collect::<Vec<_>>())
    }

    /// As which parts building it counts: its tree is about as large as theirs together.
    pub(super) fn parts(&self) -> Vec<StoredPart> {
        self.layers().into_iter().map(|layer| StoredPart { layer, place: None }).collect()
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(member, _)| member)
    }

    /// The layers of all, each once.
    fn layers(&self) -> Vec<Digest> {
        let mut seen = HashSet::new();
        let all = self.members.iter().flat_map(|(_, layers)| layers.iter().copied());
        all.filter(|layer| seen.insert(*layer)).collect()
    }
}

/// The combined image, if it is here as this release makes it; it stays as long as `hold`. Blocking.
///
/// # Errors
/// Those of reading the record and of writing the hold.
pub(super) fn stored(
    store: &Store,
    hold: &Hold,
    wanted: &Combination,
) -> Result<Option<ImageRecord>, PullError> {
    let (key, name) = (wanted.key(), wanted.name.as_str());
    loop {
        let found = store.images().get_or_set_aside(&key).about(name)?;
        let Some(record) = found.filter(|record| !record.is_outdated()) else { return Ok(None) };
        // Read after it was noted: no collection has taken it in between.
        if hold.keeps(&record) {
            return Ok(Some(record));
        }
        hold.keep_blocking(&Held::of(&record)).about(name)?;
    }
}

/// Builds the combined image and commits it, unless that has been done. Blocking.
///
/// # Errors
/// A member's image is lost or damaged, two members have different things at one path, they exceed `limits` together, or
/// `stop` says so.
pub(super) fn combine(
    store: &Store,
    hold: &Hold,
    wanted: &Combination,
    (limits, stop): (&ImageLimits, &Stop),
) -> Result<ImageRecord, PullError> {
    let name = wanted.name.as_str();
    let (key, layers) = (wanted.key(), wanted.layers());
    let mut needed = vec![Held::Manifest(key)];
    needed.extend(wanted.members().map(|member| Held::Composefs(member.image)));
    needed.extend(layers.iter().copied().map(Held::Layer));
    hold.keep_blocking(&needed).about(name)?;
    // Another caller may have built it while this one waited.
    if let Some(record) = stored(store, hold, wanted)? {
        return Ok(record);
    }
    let tree = tree(store, wanted.members(), (limits, stop), name)?;
    let image = Image::of(tree).about(name)?;
    build::put(store, hold, &image, name)?;
    let record = ImageRecord {
        manifest: key,
        image: image.digest(),
        image_size: image.size(),
        // Each member has gone by rules of its own, and stays as it is.
        rules: Rules::Verbatim,
        builder: ImageRecord::BUILDER,
        sealed: false,
        layers,
        places: Vec::new(),
        // Each member's own has been applied.
        choice: Choice::default(),
        platform: None,
        names: vec![name.to_owned()],
        inodes: image.inodes(),
        bytes: image.file_bytes(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
        powers: None,
        variants: Vec::new(),
        members: wanted.members().cloned().collect(),
    };
    // The commit syncs, which may take long.
    drop(image);
    store.commit_image(hold, &record).about(name)?;
    crate::sys::release_free_memory();
    tracing::info!(composefs = %record.image, members = record.members.len(), inodes = record.inodes, "combined");
    Ok(record)
}

/// The tree of a combined image, from what it is stored as. `image` is for messages. Blocking.
///
/// # Errors
/// It cannot be read, or exceeds `limits`.
pub fn tree_of(
    store: &Store,
    record: &ImageRecord,
    limits: &ImageLimits,
    image: &str,
) -> Result<CheckedTree, PullError> {
    let whole = Member {
        name: image.to_owned(),
        manifest: record.manifest,
        image: record.image,
        path: String::new(),
        at: String::new(),
    };
    tree(store, [&whole], (limits, &Stop::default()), image)
}

fn tree<'a>(
    store: &Store,
    members: impl IntoIterator<Item = &'a Member>,
    (limits, stop): (&ImageLimits, &Stop),
    name: &str,
) -> Result<CheckedTree, PullError> {
    let mut combiner = Combiner::new(*limits, stop);
    for member in members {
        let bytes = proven_bytes(store, member)?;
        combiner.begin(&member.name, member.at.as_bytes());
        let added =
            composefs::each_entry::<TreeError>(&bytes, member.path.as_bytes(), |entry| combiner.add(entry));
        added.about(&member.name)?.about(name)?;
        crate::sys::release_free_memory();
    }
    let tree = combiner.finish();
    let (found, limit) = (tree.file_bytes(), limits.image_bytes);
    if found > limit {
        let exceeded = Cap::ImageBytes.exceeded(found, limit);
        return Err(PullError::Limit { image: name.to_owned(), exceeded });
    }
    Ok(tree)
}

/// The bytes of a member's composefs image, which hash to its digest.
fn proven_bytes(store: &Store, member: &Member) -> Result<Vec<u8>, PullError> {
    let bytes = store.objects().read_whole(&member.image).about(&member.name)?;
    let found = VerityDigest::of(&bytes);
    if found != member.image {
        let reason = format!("its digest is {found}, and {} is wanted", member.image);
        return Err(ImageError::Corrupt { reason }).about(&member.name);
    }
    Ok(bytes)
}
