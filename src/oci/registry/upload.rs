//! Sends blobs, piece by piece (distribution-spec 1.1, "Pushing a blob in chunks", "Mounting a blob from another repository").
//!
//! A piece is one `PATCH`. If it fails, the registry is asked how much it has (`GET` of the upload), and only what is missing
//! is sent again. Pieces get smaller where the network is too slow for them: the time limit is for the answer, which comes
//! when all of a piece is there.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Method, Response, Url, header};

use super::client::RegistryClient;
use super::request::{Body, Upload};
use super::{RegistrySource, Request, SourceError};
use crate::kind::Kind;
use crate::oci::destination::{Begun, BlobUpload, NewBlob, Repository};
use crate::oci::manifest::Descriptor;

/// Fewest bytes of a piece, however slow the network is, if the registry does not want more.
const PIECE_MIN: usize = 256 << 10;
const OCTETS: &str = "application/octet-stream";

#[async_trait]
impl Repository for RegistrySource {
    async fn has_blob(&self, blob: &NewBlob) -> Result<bool, SourceError> {
        let descriptor = Descriptor {
            media_type: OCTETS.to_owned(),
            digest: blob.digest,
            size: blob.size,
            annotations: Default::default(),
        };
        let upload = Some(Upload { at: None, range: None, answers: &[200] });
        // With the rights of a push, so that one token serves for all.
        let request = Request { method: Method::HEAD, upload, ..self.blob_request(&descriptor) };
        match self.client.retrying(&request, || self.client.send(&request)).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::Transient => Err(error),
            // Registries refuse to say so of a repository that nobody has pushed to. Whether a push is refused, it will say.
            Err(_) => Ok(false),
        }
    }

    async fn begin(&self, blob: &NewBlob, from: Option<&str>) -> Result<Begun, SourceError> {
        let mount = from.map(|from| format!("?mount={}&from={from}", blob.digest)).unwrap_or_default();
        let body = Some(Body { media_type: OCTETS.to_owned(), bytes: Bytes::new() });
        let request = Request {
            method: Method::POST,
            repository: self.repository.clone(),
            path: format!("blobs/uploads/{mount}"),
            accept: None,
            offset: 0,
            end: None,
            body,
            upload: Some(Upload { at: None, range: None, answers: &[201, 202] }),
            quiet: false,
            subject: format!("blob {} of {}", blob.digest, self.name),
        };
        let response = self.client.retrying(&request, || self.client.send(&request)).await?;
        if response.status().as_u16() == 201 {
            return Ok(Begun::Mounted);
        }
        let least = response.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok());
        let least = least.and_then(|text| text.parse().ok()).unwrap_or(0_usize);
        let (client, blob) = (Arc::clone(&self.client), *blob);
        let mut upload = RegistryUpload { client, request, blob, sent: 0, piece: usize::MAX, least };
        upload.follow(&response)?;
        Ok(Begun::Open(Box::new(upload)))
    }
}

/// An upload to a registry.
#[derive(Debug)]
struct RegistryUpload {
    client: Arc<RegistryClient>,
    /// The request that began it; its upload says where it goes on.
    request: Request,
    blob: NewBlob,
    /// Bytes that the registry has.
    sent: u64,
    /// Most bytes of a piece, and the fewest that the registry takes.
    piece: usize,
    least: usize,
}

impl RegistryUpload {
    fn step(&self, method: Method, bytes: Option<Bytes>, answers: &'static [u16]) -> Request {
        let at = self.request.upload.as_ref().and_then(|upload| upload.at.clone());
        let body = bytes.map(|bytes| Body { media_type: OCTETS.to_owned(), bytes });
        let upload = Some(Upload { at, range: None, answers });
        Request { method, body, upload, ..self.request.clone() }
    }

    /// Goes on where an answer says.
    fn follow(&mut self, response: &Response) -> Result<(), SourceError> {
        let stated = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let url = stated.and_then(|stated| response.url().join(stated).ok());
        let protocol = |detail: &str| {
            self.client.protocol(&self.request.subject, detail.to_owned(), Some(response.url()))
        };
        let url = url
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| protocol("it does not say where the upload goes on"))?;
        if url.scheme() == "http" && !self.client.is_insecure() {
            return Err(protocol("it wants the upload to go on by plain http"));
        }
        if let Some(upload) = &mut self.request.upload {
            upload.at = Some(url);
        }
        Ok(())
    }

    /// Sends the beginning of `bytes`, and returns how much of it has arrived.
    async fn send_piece(&mut self, bytes: &Bytes) -> Result<usize, SourceError> {
        let mut failed = 0;
        loop {
            let piece = bytes.slice(..bytes.len().min(self.piece.max(self.least)));
            let length = piece.len() as u64;
            let mut request = self.step(Method::PATCH, Some(piece), &[202, 201, 204]);
            if let Some(upload) = &mut request.upload {
                upload.range = Some(format!("{}-{}", self.sent, self.sent + length.saturating_sub(1)));
            }
            self.client.wait_for_hold(&request.subject).await?;
            let error = match self.client.send(&request).await {
                Ok(response) => {
                    self.follow(&response)?;
                    self.sent += length;
                    return Ok(length as usize);
                }
                Err(error) => error,
            };
            if matches!(error, SourceError::Stalled { .. } | SourceError::Overdue { .. }) {
                self.piece = (length as usize / 2).max(PIECE_MIN);
            }
            failed += 1;
            self.client.pause_or_fail(failed, error).await?;
            self.client.count_repeat(self.sent);
            let there = self.arrived().await?;
            let taken = there.checked_sub(self.sent).filter(|taken| *taken <= length);
            match taken {
                Some(0) => {}
                Some(taken) => {
                    self.sent = there;
                    return Ok(taken as usize);
                }
                // It has lost what it had, or has what nobody sent.
                None => {
                    let detail = format!("of the upload it has {there} bytes, and {} were sent", self.sent);
                    return Err(self.client.protocol(&self.request.subject, detail, None));
                }
            }
        }
    }

    /// How many bytes the registry has. `Range: 0-0` stands for none as well as for one.
    async fn arrived(&mut self) -> Result<u64, SourceError> {
        let request = self.step(Method::GET, None, &[204, 202, 200]);
        let response = self.client.retrying(&request, || self.client.send(&request)).await?;
        let stated = response.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
        let stated = stated.map(|text| text.trim_start_matches("bytes="));
        let last: Option<u64> = stated.and_then(|text| text.split_once('-')?.1.parse().ok());
        if response.headers().contains_key(header::LOCATION) {
            self.follow(&response)?;
        }
        match last {
            Some(0) if self.sent == 0 => Ok(0),
            Some(last) => Ok(last.saturating_add(1)),
            None => {
                let detail = "it does not say how much of the upload it has".to_owned();
                Err(self.client.protocol(&request.subject, detail, Some(response.url())))
            }
        }
    }

    fn closing(url: &mut Url, blob: &NewBlob) {
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    }
}

#[async_trait]
impl BlobUpload for RegistryUpload {
    async fn append(&mut self, bytes: Bytes) -> Result<(), SourceError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.send_piece(&rest).await?;
            rest = rest.slice(taken..);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), SourceError> {
        let mut request = self.step(Method::PUT, Some(Bytes::new()), &[201, 204]);
        if let Some(url) = request.upload.as_mut().and_then(|upload| upload.at.as_mut()) {
            Self::closing(url, &self.blob);
        }
        self.client.retrying(&request, || self.client.send(&request)).await.map(drop)
    }
}
