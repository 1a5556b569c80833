//! Content codings (RFC 9110, section 8.4.1) that a server applies although every request asks for none.
//!
//! Proxies compress what they pass on, and object storage names a coding for files that merely are gzip. So a coding is
//! undone only where the bytes begin as one of that coding does. Output comes in pieces of bounded size, whatever the
//! input expands to. Pure.

use std::io;

use bytes::{Buf as _, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use reqwest::header::{self, HeaderMap};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation as _};

/// The most bytes that one step yields.
const PIECE: usize = 64 << 10;

/// RFC 9659: the largest window of the content coding `zstd`, as a power of two.
const WINDOW_LOG_MAX: u32 = 23;

/// A coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Zstd,
}

impl Coding {
    /// The coding that a response names; `None` for none.
    ///
    /// # Errors
    /// It is one that is not understood, or there are several; the error is their name.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        let all = values.map(|value| value.to_str().unwrap_or("?")).collect::<Vec<_>>().join(",");
        let all = all.to_ascii_lowercase();
        let named = all.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "identity");
        let named: Vec<&str> = named.collect();
        match named[..] {
            [] => Ok(None),
            ["gzip" | "x-gzip"] => Ok(Some(Self::Gzip)),
            ["deflate"] => Ok(Some(Self::Deflate)),
            ["zstd"] => Ok(Some(Self::Zstd)),
            _ => Err(named.join(", ")),
        }
    }
}

/// Undoes a coding piece by piece.
pub(super) struct Decoder {
    coding: Coding,
    state: State,
    input: Bytes,
}

enum State {
    /// Nothing has come yet.
    Start,
    /// The bytes are not what the coding makes: they are passed on.
    Plain,
    Flate(Box<Decompress>),
    Zstd(Box<ZstdDecoder<'static>>),
    /// A member or frame is complete.
    End,
}

impl Decoder {
    pub(super) fn new(coding: Coding) -> Self {
        Self { coding, state: State::Start, input: Bytes::new() }
    }

    /// Takes the next bytes as they came. The last ones must have been used up.
    pub(super) fn feed(&mut self, input: Bytes) {
        // The start is judged by two bytes (four of zstd), which may come one by one.
        self.input =
            if self.input.is_empty() { input } else { [&self.input[..], &input[..]].concat().into() };
    }

    /// The next decoded bytes; none if more input is needed. At the end, `last` says that there is no more.
    ///
    /// # Errors
    /// The data is damaged, or ends too early.
    pub(super) fn decode(&mut self, last: bool) -> io::Result<Bytes> {
        loop {
            let waits = self.input.len() < 4 && !last;
            match &mut self.state {
                State::Start | State::End if waits || self.input.is_empty() => return Ok(Bytes::new()),
                State::Start => self.state = self.begin()?,
                State::Plain => return Ok(std::mem::take(&mut self.input)),
                // Another member or frame may follow; anything else is dropped, as HTTP clients do.
                State::End => match self.begin()? {
                    State::Plain => self.input.clear(),
                    next => self.state = next,
                },
                State::Flate(_) | State::Zstd(_) => {
                    let output = self.step()?;
                    if !output.is_empty() {
                        return Ok(output);
                    }
                    if !matches!(self.state, State::End) {
                        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
                        return if last { Err(ended()) } else { Ok(Bytes::new()) };
                    }
                }
            }
        }
    }

    fn step(&mut self) -> io::Result<Bytes> {
        let mut output = vec![0; PIECE];
        let (read, written, is_over) = match &mut self.state {
            State::Flate(decoder) => {
                let (read, written) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(&self.input, &mut output, FlushDecompress::None);
                let is_over = status.map_err(io::Error::other)? == Status::StreamEnd;
                ((decoder.total_in() - read) as usize, (decoder.total_out() - written) as usize, is_over)
            }
            State::Zstd(decoder) => {
                let status = decoder.run_on_buffers(&self.input, &mut output)?;
                (status.bytes_read, status.bytes_written, status.remaining == 0)
            }
            _ => (0, 0, false),
        };
        self.input.advance(read);
        if is_over {
            self.state = State::End;
        }
        output.truncate(written);
        Ok(output.into())
    }

    fn begin(&self) -> io::Result<State> {
        let start = &self.input[..];
        Ok(match self.coding {
            Coding::Gzip if start.starts_with(b"\x1f\x8b") => {
                State::Flate(Box::new(Decompress::new_gzip(15)))
            }
            // RFC 9110 means zlib's format; some servers send the bare data, whose first byte is no JSON either.
            Coding::Deflate if is_zlib(start) => State::Flate(Box::new(Decompress::new(true))),
            Coding::Deflate if !is_text(start) => State::Flate(Box::new(Decompress::new(false))),
            Coding::Zstd if start.starts_with(b"\x28\xb5\x2f\xfd") => {
                let mut decoder = ZstdDecoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
                State::Zstd(Box::new(decoder))
            }
            _ => State::Plain,
        })
    }
}

/// RFC 1950, section 2.2.
fn is_zlib(start: &[u8]) -> bool {
    matches!(start, [method, flags, ..]
        if method & 0xf == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0)
}

fn is_text(start: &[u8]) -> bool {
    start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn coded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::default();
        match coding {
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    fn decoded(coding: Coding, input: &[u8], piece: usize) -> io::Result<Vec<u8>> {
        let (mut decoder, mut all) = (Decoder::new(coding), Vec::new());
        let mut pieces = input.chunks(piece);
        loop {
            let next = pieces.next();
            if let Some(piece) = next {
                decoder.feed(Bytes::copy_from_slice(piece));
            }
            loop {
                let output = decoder.decode(next.is_none())?;
                assert!(output.len() <= PIECE.max(input.len()));
                if output.is_empty() {
                    break;
                }
                all.extend_from_slice(&output);
            }
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    const ALL: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];

    #[test]
    fn codings_are_undone_in_pieces() {
        let zeros = vec![0; 1 << 20];
        for coding in ALL {
            for content in [&b"{}"[..], &b"{\"schemaVersion\":2}".repeat(9000)[..], &zeros] {
                let coded = coded(coding, content);
                for piece in [1, 7, coded.len()] {
                    assert!(decoded(coding, &coded, piece).unwrap() == content, "{coding:?} {piece}");
                }
                let cut = &coded[..coded.len() - 5];
                assert!(decoded(coding, cut, 100).is_err() || coding == Coding::Gzip, "{coding:?}");
            }
        }
        let bare = {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&zeros).unwrap();
            encoder.finish().unwrap()
        };
        assert!(decoded(Coding::Deflate, &bare, 9).unwrap() == zeros);
    }

    #[test]
    fn bytes_of_another_sort_are_passed_on() {
        for coding in ALL {
            for content in ["{}", "", "\n{\"a\":1}"] {
                assert_eq!(decoded(coding, content.as_bytes(), 1).unwrap(), content.as_bytes(), "{coding:?}");
            }
        }
    }

    #[test]
    fn names_of_codings() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            Coding::of(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["", "identity"]), Ok(None));
        assert_eq!(of(&["GZIP"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["identity, x-gzip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["deflate"]), Ok(Some(Coding::Deflate)));
        assert_eq!(of(&["zstd"]), Ok(Some(Coding::Zstd)));
        assert_eq!(of(&["br"]), Err("br".to_owned()));
        assert_eq!(of(&["gzip", "br"]), Err("gzip, br".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_or_hangs(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), flip in 0_usize..300) {
            for coding in ALL {
                let _ = decoded(coding, &bytes, 50);
                let mut damaged = coded(coding, &bytes);
                let at = flip % damaged.len();
                damaged[at] ^= 0x10;
                let _ = decoded(coding, &damaged, 50);
            }
        }
    }
}
