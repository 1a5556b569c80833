//! Integrity level `mount`: this process reads and hashes the image and all its objects before the first mount.
//!
//! The result holds for that moment. Unlike fs-verity, it does not detect later writes to the store's disk. It is
//! therefore kept for one base mount only; a new base mount is checked again.

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
///
/// # Errors
/// [`MountError::WrongDigest`], [`MountError::NotAnImage`] or [`MountError::BadObject`] if the check fails.
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
    // Not needed while the objects are read, which takes long.
    drop(bytes);
    let (read, corrupt) = examine(&named, objects).map_err(|error| {
        tracing::error!(image = %digest, %error, "objects cannot be examined");
        MountError::kernel("examining the objects", format!("image {digest}"), Errno::IO)
    })?;
    if let Some((object, corruption)) = corrupt {
        return Err(MountError::BadObject { image: digest, object, corruption });
    }
    let seconds = begun.elapsed().as_secs_f64();
    tracing::info!(image = %digest, objects = named.len(), bytes = read, seconds, "checked before its mount");
    Ok(())
}

/// Bytes read, and the first corrupt object found, if any.
type Found = (u64, Option<(VerityDigest, Corruption)>);

/// Examines objects until one is corrupt: one is enough to refuse the mount.
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
                        (Ok((_, corrupt @ None)), Ok((_, Some(how)))) => *corrupt = Some((*object, how)),
                        (found @ Ok((_, None)), Err(error)) => *found = Err(error.into()),
                        // Another thread has found a corrupt object or an error already.
                        _ => return,
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
