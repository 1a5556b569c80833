//! Lists referrers in a registry: by its API, page by page, or by the fallback tag if it has no API.

use reqwest::{Method, header};

use super::{RegistrySource, Request};
use crate::oci::digest::Digest;
use crate::oci::manifest::OCI_INDEX;
use crate::oci::reference::Version;
use crate::oci::referrers::{PAGES_MAX, REFERRERS_MAX, fallback_tag, next_page, parse};
use crate::oci::{Referrer, Source as _, SourceError};

impl RegistrySource {
    pub(super) async fn list_referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        let (mut found, mut query) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = self.page(subject, query.take()).await;
            let (referrers, next) = match page {
                Ok(page) => page,
                // The registry has no such API. The specification has a fallback tag for that. Once a page was
                // read the API exists, and its failures are failures.
                Err(error) if found.is_empty() && has_no_api(&error) => {
                    return self.tagged_referrers(subject).await;
                }
                Err(other) => return Err(other),
            };
            found.extend(referrers);
            // Both limits hold whatever a hostile registry serves.
            if next.is_none() || found.len() >= REFERRERS_MAX {
                break;
            }
            query = next;
        }
        found.truncate(REFERRERS_MAX);
        Ok(found)
    }

    async fn page(
        &self,
        subject: &Digest,
        query: Option<String>,
    ) -> Result<(Vec<Referrer>, Option<String>), SourceError> {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let request = Request {
            method: Method::GET,
            repository: self.repository.clone(),
            path: format!("referrers/{subject}{query}"),
            accept: Some(OCI_INDEX.to_owned()),
            offset: 0,
            end: None,
            body: None,
            upload: None,
            quiet: false,
            subject: format!("the referrers of {}@{subject}", self.name),
        };
        self.client.retrying(&request, || self.fetch_page(&request)).await
    }

    async fn fetch_page(&self, request: &Request) -> Result<(Vec<Referrer>, Option<String>), SourceError> {
        let response = self.client.send(request).await?;
        let links = response.headers().get_all(header::LINK);
        let next = next_page(links.iter().filter_map(|value| value.to_str().ok()));
        let bytes = self.read_bounded(request, response).await?;
        let referrers = parse(&bytes)
            .ok_or_else(|| self.client.protocol(&request.subject, "it is not an index".to_owned(), None))?;
        Ok((referrers, next))
    }

    async fn tagged_referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, SourceError> {
        match self.manifest(&Version::Tag(fallback_tag(subject))).await {
            // Anyone who can push can write this tag, so content that is no index is no failure of the registry.
            Ok(index) => Ok(parse(&index.bytes).unwrap_or_default()),
            Err(SourceError::NotFound { .. }) => Ok(Vec::new()),
            Err(other) => Err(other),
        }
    }
}

/// Whether a failure is that of a registry without the API.
fn has_no_api(error: &SourceError) -> bool {
    match error {
        SourceError::NotFound { .. } | SourceError::Protocol { .. } => true,
        SourceError::Redirected(error) => matches!(error.status, 404 | 405 | 501),
        _ => false,
    }
}
