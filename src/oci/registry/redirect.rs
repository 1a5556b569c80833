//! Follows the redirects of a host that has headers of its own. The HTTP client would send them on to the next host.

use reqwest::header;
use reqwest::{Response, Url};

use super::client::RegistryClient;
use super::request::Request;
use super::transport::{REDIRECTS_MAX, Transport};
use crate::oci::SourceError;

impl RegistryClient {
    /// The response at the end of the redirects that begin with `response`. Its own host keeps headers and authorization
    /// on the way to itself; another host gets neither.
    ///
    /// # Errors
    /// There are too many, they lead out of TLS, or nowhere, or a host on the way cannot be reached.
    pub(super) async fn redirected(
        &self,
        response: Response,
        request: &Request,
    ) -> Result<Response, SourceError> {
        // Without such headers the HTTP client has followed them.
        if self.headers.is_empty() {
            return Ok(response);
        }
        let mut response = response;
        for _ in 0..REDIRECTS_MAX {
            if !response.status().is_redirection() || request.body.is_some() {
                return Ok(response);
            }
            let from = response.url().clone();
            let Some(to) = target(&response) else { return Ok(response) };
            if from.scheme() == "https" && to.scheme() != "https" {
                let detail = "it redirects from https to plain http".to_owned();
                return Err(self.protocol(&request.subject, detail, Some(&to)));
            }
            let own = self.is_own(&to);
            let mut next = self.bare(to, request);
            if own {
                let held = self.held(&request.repository);
                next = self.authorized(next.headers(self.own_headers(&held)), &held);
            }
            response = Transport::send(next).await.map_err(|e| self.broken(e, &request.subject))?;
        }
        let detail = format!("it redirects more than {REDIRECTS_MAX} times");
        Err(self.protocol(&request.subject, detail, Some(response.url())))
    }
}

fn target(response: &Response) -> Option<Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    response.url().join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}
