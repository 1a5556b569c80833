//! The body of a response, with a content coding undone that nobody asked for.

use bytes::Bytes;
use reqwest::{Response, Url, header};

use super::coding::{Coding, Decoder};

/// A body that is read to its end, or as far as its reader likes.
pub(super) struct Body {
    response: Response,
    decoder: Option<Decoder>,
    is_over: bool,
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    Transport(reqwest::Error),
    /// The content coding is damaged or not understood; what is wrong.
    Coding(String),
}

impl Body {
    /// The content of a response.
    ///
    /// # Errors
    /// It has a coding that cannot be undone.
    pub(super) fn of(response: Response) -> Result<Self, BodyError> {
        let unknown = |name| BodyError::Coding(format!("it is encoded as {name:?}, which was not asked for"));
        let coding = Coding::of(response.headers()).map_err(unknown)?;
        Ok(Self { response, decoder: coding.map(Decoder::new), is_over: false })
    }

    /// The bytes of a response as they come.
    pub(super) fn raw(response: Response) -> Self {
        Self { response, decoder: None, is_over: false }
    }

    /// Whether a coding is being undone. Ranges would be ranges of the coded bytes.
    pub(super) fn is_coded(&self) -> bool {
        self.decoder.is_some()
    }

    /// The next bytes, or `None` after the last.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                let decoded = decoder.decode(self.is_over);
                let decoded =
                    decoded.map_err(|e| BodyError::Coding(format!("its content coding is damaged ({e})")))?;
                if !decoded.is_empty() {
                    return Ok(Some(decoded));
                }
            }
            if self.is_over {
                return Ok(None);
            }
            // The host that breaks off may be one that the registry redirected to.
            let named = |error: reqwest::Error, url: &Url| BodyError::Transport(error.with_url(url.clone()));
            let chunk = self.response.chunk().await;
            match (chunk.map_err(|error| named(error, self.response.url()))?, &mut self.decoder) {
                (None, _) => self.is_over = true,
                (Some(chunk), Some(decoder)) => decoder.feed(chunk),
                (Some(chunk), None) => return Ok(Some(chunk)),
            }
        }
    }
}

/// The media type that a server states, in lower case and without parameters.
pub(super) fn stated_type(response: &Response) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
