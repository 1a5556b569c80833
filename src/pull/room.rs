//! Whether a pull fits on the disk, asked before a byte of a layer is fetched
//! (`docs/adr/0050-what-cannot-fit-is-not-fetched.md`).
//!
//! What is *expected* is the size of the layers that are not here: for it room is made. Only what is *certain* refuses: files
//! of layers may be on the disk already, for others, or several times in the image, so most layers may take less than they
//! weigh, and a pull that might fit is begun. What is here counts only where the caller may use it, so that no answer tells
//! what others have ([`Rights::layer`]).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::error::About as _;
use super::recipe::{self, Part};
use super::rights::Rights;
use super::{PullError, blocking};
use crate::image::store::{PartialOf, Store, StoreError};
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::manifest::LayerForm;

/// Removes what may go, so that a pull fits. The seam to who knows what is mounted.
pub trait MakeRoom: fmt::Debug + Send + Sync {
    /// Removes images that nothing needs until so many bytes can be written beyond what pulls leave to others, or no more
    /// may go. Blocking.
    ///
    /// # Errors
    /// Those of [`Store::collect`].
    fn make_room(&self, store: &Store, bytes: u64) -> Result<(), StoreError>;
}

/// How layers are reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reckoning {
    /// What a layer takes of the disk at least, in percent of its size in the registry.
    pub percent: u8,
    /// Whether files may take less than their bytes, so that nothing is certain.
    pub compresses: bool,
    /// Whether layers that can be are fetched in parts.
    pub in_parts: bool,
}

/// Bytes that layers take of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    /// What they weigh.
    expected: u64,
    /// Files that are layers: none has the content of another.
    files: u64,
    /// The largest of them. It is written before it is known whether it is here.
    largest_file: u64,
    /// The largest archive. Others may have the same files.
    largest_archive: u64,
}

impl Need {
    /// Of these parts, each with the bytes of its blob that an earlier pull has received.
    fn of<'a>(parts: impl IntoIterator<Item = (&'a Part, u64)>, by: Reckoning) -> Self {
        let (mut need, mut seen) = (Self::default(), BTreeSet::new());
        for (part, received) in parts {
            let blob = &part.blob;
            // Of an archive of which only a choice is stored, nobody knows how much that is.
            if part.made.is_some() || !part.choice.is_all() || !seen.insert(blob.digest) {
                continue;
            }
            let reckoned = |size: u64| {
                let taken = u128::from(size) * u128::from(by.percent) / 100;
                u64::try_from(taken).unwrap_or(u64::MAX)
            };
            let size = reckoned(blob.size);
            if !(blob.is_zstd_chunked() && by.in_parts) {
                let stated = blob.unpacked_size().map_or(0, reckoned);
                // What has been received has mostly been unpacked, too.
                need.expected = need.expected.saturating_add(size.max(stated).saturating_sub(received));
            }
            match part.form {
                _ if by.compresses => {}
                LayerForm::File => {
                    need.files = need.files.saturating_add(size);
                    need.largest_file = need.largest_file.max(size);
                }
                LayerForm::Archive(_) => need.largest_archive = need.largest_archive.max(size),
                LayerForm::Nothing => {}
            }
        }
        need
    }

    /// What they take for certain, where the objects in the store take `stored` bytes: any of these may be files of theirs.
    fn least(&self, stored: u64) -> u64 {
        self.largest_file.max(self.files.max(self.largest_archive).saturating_sub(stored))
    }

    fn fits(&self, spare: u64) -> bool {
        self.expected <= spare && self.least(0) <= spare
    }
}

/// What is asked of a pull.
pub(super) struct RoomCheck {
    pub store: Arc<Store>,
    /// Makes room, if somebody waits for the image: a prefetch removes no other one.
    pub maker: Option<Arc<dyn MakeRoom>>,
    /// Of the caller that started the pull.
    pub rights: Rights,
    /// What it is made of.
    pub parts: Vec<Part>,
    /// The reference, for messages.
    pub image: String,
    pub by: Reckoning,
}

impl RoomCheck {
    /// Makes room for what the pull has to fetch, if there is too little, and refuses what cannot fit.
    ///
    /// # Errors
    /// [`PullError::NoRoom`], and those of looking for the layers that are here.
    pub(super) async fn run(self) -> Result<(), PullError> {
        let need = Need::of(self.parts.iter().map(|part| (part, 0)), self.by);
        if need == Need::default() {
            return Ok(());
        }
        let image = self.image.clone();
        // The usual pull fits, and no record is read.
        blocking(&image, move || if need.fits(self.spare()) { Ok(()) } else { self.make_room() }).await?
    }

    fn make_room(&self) -> Result<(), PullError> {
        let mut missing = Vec::new();
        for part in &self.parts {
            if !self.is_here(part)? {
                missing.push((part, self.received(part)));
            }
        }
        let need = Need::of(missing, self.by);
        if need.fits(self.spare()) {
            return Ok(());
        }
        if need.expected > self.spare() {
            self.make(need.expected);
        }
        let Some((least, _)) = self.shortage(&need)? else { return Ok(()) };
        // Of what is fetched in parts nothing was expected.
        if least > need.expected {
            self.make(least);
        }
        let Some((least, spare)) = self.shortage(&need)? else { return Ok(()) };
        Err(PullError::NoRoom {
            image: self.image.clone(),
            least: least.div_ceil(1 << 20),
            spare: spare >> 20,
        })
    }

    /// Whether the caller may use the layer that is here. As [`super::layers::LayerFetcher`] looks for it, without a hold: one
    /// that goes meanwhile is fetched.
    fn is_here(&self, part: &Part) -> Result<bool, PullError> {
        let whole = recipe::key((&part.blob.digest, part.form), &Choice::default());
        let own = recipe::key((&part.blob.digest, part.form), &part.choice);
        let keys: BTreeSet<Digest> = [whole, own].into_iter().chain(part.claimed).collect();
        for key in keys {
            if self.rights.layer(&key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn received(&self, part: &Part) -> u64 {
        let (origin, reader) = self.rights.identity();
        let (digest, size, reader) = (part.blob.digest, part.blob.size, format!("{reader:?}"));
        self.store.partials().received(PartialOf {
            blob: &digest,
            size,
            host: origin.host(),
            reader: &reader,
        })
    }

    /// Where it cannot be measured, the write itself tells.
    fn spare(&self) -> u64 {
        self.store.spare().unwrap_or(u64::MAX)
    }

    /// What is needed for certain, and what there is, if that is less.
    fn shortage(&self, need: &Need) -> Result<Option<(u64, u64)>, PullError> {
        let spare = self.spare();
        if need.least(0) <= spare {
            return Ok(None);
        }
        let least = match need.largest_file {
            // Whatever is in the store. Else that is counted, object by object.
            file if file > spare => file,
            _ => need.least(self.store.objects().bytes().about(&self.image)?),
        };
        Ok((least > spare).then_some((least, spare)))
    }

    fn make(&self, bytes: u64) {
        let Some(maker) = &self.maker else { return };
        match self.store.capacity() {
            Ok(capacity) if bytes <= capacity => {}
            // Not if the store were empty.
            _ => return,
        }
        tracing::info!(image.reference = self.image, bytes, "making room for a pull");
        if let Err(error) = maker.make_room(&self.store, bytes) {
            tracing::warn!(image.reference = self.image, %error, "no room could be made for a pull");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::manifest::{Descriptor, LayerCompression};

    const BY: Reckoning = Reckoning { percent: 100, compresses: false, in_parts: true };
    const GZIP: LayerForm = LayerForm::Archive(LayerCompression::Gzip);

    fn part(name: &str, form: LayerForm, size: u64, annotations: &[(&str, &str)]) -> Part {
        let own = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let annotations = own.collect();
        let blob = Descriptor {
            media_type: "a/b".to_owned(),
            digest: Digest::of(name.as_bytes()),
            size,
            annotations,
        };
        let choice = Choice::default();
        Part { blob, form, claimed: None, place: None, number: 0, choice, made: None }
    }

    fn need(parts: &[Part], by: Reckoning) -> Need {
        Need::of(parts.iter().map(|part| (part, 0)), by)
    }

    #[test]
    fn what_has_been_received_is_not_expected_again() {
        let part = part("a", GZIP, 10, &[]);
        let need = Need::of([(&part, 7)], BY);
        assert_eq!((need.expected, need.least(0)), (3, 10));
    }

    #[test]
    fn archives_may_share_their_files_and_files_are_each_another() {
        let archives = [part("a", GZIP, 10, &[]), part("b", GZIP, 7, &[]), part("a", GZIP, 10, &[])];
        let found = need(&archives, BY);
        assert_eq!((found.expected, found.least(0), found.least(4), found.least(11)), (17, 10, 6, 0));
        let files = [part("a", LayerForm::File, 10, &[]), part("b", LayerForm::File, 7, &[])];
        let found = need(&files, BY);
        // The larger one is written whole, whatever is there.
        assert_eq!((found.expected, found.least(0), found.least(4), found.least(11)), (17, 17, 13, 10));
        assert!(found.fits(17) && !found.fits(16));
    }

    #[test]
    fn what_is_fetched_in_parts_is_not_expected_and_may_be_refused() {
        let chunked = [part("a", GZIP, 10, &[("io.github.containers.zstd-chunked.manifest-checksum", "x")])];
        let found = need(&chunked, BY);
        assert_eq!((found.expected, found.least(0)), (0, 10));
        assert_eq!(need(&chunked, Reckoning { in_parts: false, ..BY }).expected, 10);
    }

    #[test]
    fn what_the_publisher_states_is_expected_and_proves_nothing() {
        let stated = [part("a", GZIP, 10, &[("io.containers.estargz.uncompressed-size", "35")])];
        let found = need(&stated, BY);
        assert_eq!((found.expected, found.least(0)), (35, 10));
        let nonsense = [part("a", GZIP, 10, &[("io.containers.estargz.uncompressed-size", "-1")])];
        assert_eq!(need(&nonsense, BY).expected, 10);
    }

    #[test]
    fn what_the_filesystem_may_compress_is_not_certain() {
        let by = Reckoning { compresses: true, ..BY };
        let parts = [
            part("file", LayerForm::File, 10, &[]),
            part("tar", LayerForm::Archive(LayerCompression::None), 20, &[]),
            part("gzip", GZIP, 5, &[]),
        ];
        let found = need(&parts, by);
        assert_eq!((found.expected, found.least(0)), (35, 0));
    }

    #[test]
    fn by_half_of_their_size_or_not_at_all() {
        let parts = [part("a", LayerForm::File, u64::MAX, &[]), part("b", LayerForm::File, u64::MAX, &[])];
        assert_eq!(need(&parts, Reckoning { percent: 50, ..BY }).least(0), u64::MAX - 1);
        assert_eq!(need(&parts, BY).least(0), u64::MAX);
        assert_eq!(need(&parts, Reckoning { percent: 0, ..BY }), Need::default());
    }

    #[test]
    fn a_choice_of_an_archive_is_of_unknown_size() {
        let chosen = Part { choice: Choice::new(["a/*"], ["a/b"]).unwrap(), ..part("a", GZIP, 10, &[]) };
        assert_eq!(need(&[chosen], BY), Need::default());
    }
}
