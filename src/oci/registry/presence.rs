//! Asks whether a registry would give a blob.

use reqwest::Method;

use super::{RegistrySource, Request};
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::manifest::Descriptor;

impl RegistrySource {
    /// Whether the registry gives the blob to this client's credential, by a HEAD (distribution-spec 1.1, "Checking if
    /// content exists in the registry"), or else by the blob's first byte: some storage allows GET alone. A yes means that
    /// a GET would have brought all of it.
    ///
    /// # Errors
    /// The registry refuses, does not have it, or cannot be asked.
    pub(in crate::oci) async fn confirm_blob(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        let head = Request { method: Method::HEAD, ..self.blob_request(descriptor) };
        match self.client.retrying(&head, || self.client.send(&head)).await {
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Unsupported) => {
                let first = Request { end: Some(1), ..self.blob_request(descriptor) };
                // What a server sends beyond that is dropped with its connection.
                self.client.retrying(&first, || self.client.send(&first)).await.map(drop)
            }
            outcome => outcome.map(drop),
        }
    }
}
