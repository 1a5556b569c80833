//! Asks whether a registry would give a blob.

use reqwest::Method;

use super::{RegistrySource, Request};
use crate::oci::SourceError;
use crate::oci::manifest::Descriptor;

impl RegistrySource {
    /// Whether the registry gives the blob to this client's credential, by a HEAD (distribution-spec 1.1, "Checking if
    /// content exists in the registry"). A yes means that a GET would have brought the bytes.
    ///
    /// # Errors
    /// The registry refuses, does not have it, or cannot be asked.
    pub(in crate::oci) async fn confirm_blob(&self, descriptor: &Descriptor) -> Result<(), SourceError> {
        let request = Request { method: Method::HEAD, ..self.blob_request(descriptor) };
        self.client.retrying(&request, || self.client.send(&request)).await.map(drop)
    }
}
