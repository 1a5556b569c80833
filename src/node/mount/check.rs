//! Level `mount`: the image and every object that it names, read and hashed by this process before the first mount.
//!
//! It says that all was well at that moment. What is written to the store's disk afterwards is not noticed, unlike with
//! fs-verity; so the result is kept for one base mount only, and a new one is checked anew.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustix::io::Errno;

use super::MountError;
use super::object::ImageFile;
use crate::image::composefs;
use crate::image::objects::{Corruption, Objects};
use crate::image::store::StoreError;
use crate::image::verity::VerityDigest;

/// Checks `image` by its own descriptor, and its objects on all processors. The caller holds the image's lock.
pub(super) fn check(image: &ImageFile, objects: &Objects) -> Result<(), MountError> {
    let begun = Instant::now();
    let digest = image.digest();
    let bytes = image.read()?;
    let found = VerityDigest::of(&bytes);
    if found != digest {
        return Err(MountError::WrongDigest { image: digest, measured: found });
    }
    let named = composefs::list_objects(&bytes)
        .map_err(|_| MountError::NotAnImage { image: digest, errno: Errno::UCLEAN })?;
    drop(bytes);
    let (read, wrong) = examine(&named, objects).map_err(|error| {
        tracing::error!(image = %digest, %error, "objects cannot be examined");
        MountError::kernel("examining the objects", format!("image {digest}"), Errno::IO)
    })?;
    if let Some((object, damage)) = wrong {
        return Err(MountError::BadObject { image: digest, object, damage });
    }
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(image = %digest, objects = named.len(), bytes = read, seconds, "checked before its mount");
    Ok(())
}

type Found = (u64, Option<(VerityDigest, Corruption)>);

/// Bytes read, and the first damaged object that was met: one is enough to refuse.
fn examine(named: &[VerityDigest], objects: &Objects) -> Result<Found, StoreError> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok::<Found, StoreError>((0, None))));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(named.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(object) = named.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer = objects.examine(object);
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *found, answer) {
                        (Ok((read, None)), Ok((bytes, None))) => *read += bytes,
                        (Ok((_, wrong @ None)), Ok((_, Some(damage)))) => *wrong = Some((*object, damage)),
                        (found @ Ok((_, None)), Err(error)) => *found = Err(error.into()),
                        // Another thread has met something already.
                        _ => return,
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
