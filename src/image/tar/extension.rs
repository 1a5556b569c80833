//! Headers that describe the entry to come: PAX's `x`, GNU's `L` and `K`.

use std::io::BufRead;

use super::error::TarError;
use super::header::{BLOCK, Header};
use super::limits::TarLimits;
use super::pax::Pax;
use super::stream::Stream;
use crate::oci::limits::Cap;

/// What extended headers have said of the next entry.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) pax: Pax,
    /// GNU's `L` and `K`, if they are not empty.
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Extension {
    /// If `header` describes the entry to come, reads its body and returns true. The last of several headers of one type
    /// counts, as for Go's reader.
    pub(super) fn read<R: BufRead>(
        &mut self,
        header: &Header,
        stream: &mut Stream<R>,
        limits: &TarLimits,
    ) -> Result<bool, TarError> {
        match header.type_flag() {
            // `X` is Solaris's name for `x`.
            b'x' | b'X' => {
                let body = body(header, stream, limits)?;
                self.pax = Pax::default();
                self.pax.read(&body, limits).map_err(|error| stream.pax_error(error))?;
            }
            b'L' => self.long_name = long_name(header, stream, limits)?,
            b'K' => self.long_link = long_name(header, stream, limits)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn long_name<R: BufRead>(
    header: &Header,
    stream: &mut Stream<R>,
    limits: &TarLimits,
) -> Result<Option<Vec<u8>>, TarError> {
    let mut name = body(header, stream, limits)?;
    // GNU tar ends the name with a NUL.
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    Ok((!name.is_empty()).then_some(name))
}

/// The content of an extended header, which is bounded.
fn body<R: BufRead>(
    header: &Header,
    stream: &mut Stream<R>,
    limits: &TarLimits,
) -> Result<Vec<u8>, TarError> {
    let size = header.size().map_err(|what| stream.malformed(what))?;
    let size = usize::try_from(size).map_err(|_| stream.malformed("its size is negative"))?;
    if size > limits.header {
        return Err(stream.limit(Cap::HeaderBytes.exceeded(size, limits.header)));
    }
    // Grows with what really comes: the size is only a claim.
    let mut body = Vec::new();
    for _ in 0..size.div_ceil(BLOCK) {
        body.extend_from_slice(&stream.need_block()?);
    }
    body.truncate(size);
    Ok(body)
}
