//! Reads files, and notices those that change.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::error::PushError;
use super::item::{FileSource, Stamp};

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// Passes a file's content on, piece by piece. The file is the one that was found, before and after.
///
/// # Errors
/// It cannot be read, has changed, or `take` fails.
pub(super) fn read(
    file: &FileSource,
    shown: &str,
    mut take: impl FnMut(&[u8]) -> Result<(), PushError>,
) -> Result<(), PushError> {
    let fail = |source| PushError::Read { path: file.path.clone(), source };
    let changed = || PushError::Changed { path: shown.to_owned() };
    // A pipe that has taken the file's place must not be waited for.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&file.path);
    let mut opened: File = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => changed(),
        _ => fail(error),
    })?;
    let stamp = |opened: &File| opened.metadata().map(|stat| Stamp::of(&stat)).map_err(fail);
    if stamp(&opened)? != file.stamp {
        return Err(changed());
    }
    let mut buffer = vec![0; usize::try_from(file.stamp.size).unwrap_or(BUFFER).clamp(1, BUFFER)];
    let mut left = file.stamp.size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        let count = match opened.read(&mut buffer[..most]) {
            Ok(0) => return Err(changed()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(fail(error)),
        };
        take(&buffer[..count])?;
        left -= count as u64;
    }
    if stamp(&opened)? == file.stamp { Ok(()) } else { Err(changed()) }
}
