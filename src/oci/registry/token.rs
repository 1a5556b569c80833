//! Tokens from the service that a registry names (the distribution project's "Token
//! Authentication Specification" and its OAuth2 variant).

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, Url, header};
use serde::Deserialize;

use super::client::RegistryClient;
use super::failure;
use crate::oci::SourceError;
use crate::oci::credentials::Secret;

/// A token and how long it is good for.
pub(super) struct Token {
    pub(super) value: String,
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct Wire {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Token answers beyond this size are refused, in bytes.
const ANSWER_MAX: usize = 256 << 10;

/// The specification's default, and the least that a service may mean.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

impl RegistryClient {
    /// Asks `realm` for a token that allows `actions` on `repository`, with this client's credential.
    pub(super) async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        repository: &str,
        actions: &str,
        subject: &str,
    ) -> Result<Token, SourceError> {
        let url = self.check_realm(realm, subject)?;
        let service_host = url.host_str().unwrap_or(self.host()).to_owned();
        let request = self.token_request(url, service, &format!("repository:{repository}:{actions}"));
        let outcome = request.send().await;
        let response = outcome.map_err(|e| self.failed_at(&service_host, e, subject))?;
        if response.status() != StatusCode::OK {
            let sent = self.credential().is_some();
            return Err(failure::of_response(response, &service_host, subject, sent).await);
        }
        let read = failure::read_bounded(response, ANSWER_MAX).await;
        let bytes = read.map_err(|e| self.failed_at(&service_host, e, subject))?;
        let protocol = |detail: &str| SourceError::Protocol {
            subject: subject.to_owned(),
            host: service_host.clone(),
            detail: detail.to_owned(),
        };
        // The answer is a secret: no part of it goes into a message.
        let wire: Wire = serde_json::from_slice(&bytes)
            .map_err(|_| protocol("its token service did not answer with a token"))?;
        let value = wire.token.filter(|t| !t.is_empty()).or(wire.access_token);
        let value = value
            .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or_else(|| protocol("its token service answered without a token"))?;
        let lifetime = wire.expires_in.map_or(LIFETIME_MIN, Duration::from_secs);
        Ok(Token { value, lifetime: lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX) })
    }

    /// The registry chooses who sees the credential, so that must at least be over TLS, unless
    /// the registry itself is trusted without.
    fn check_realm(&self, realm: &str, subject: &str) -> Result<Url, SourceError> {
        let url = Url::parse(realm).map_err(|_| SourceError::Protocol {
            subject: subject.to_owned(),
            host: self.host().to_owned(),
            detail: "the realm of its challenge is not a URL".to_owned(),
        })?;
        let allowed = match url.scheme() {
            "https" => true,
            "http" => self.is_insecure(),
            _ => false,
        };
        if allowed && url.username().is_empty() && url.password().is_none() && url.has_host() {
            return Ok(url);
        }
        let host = url.host_str().unwrap_or_default();
        let target = failure::printable(&format!("{}://{host}", url.scheme()));
        Err(SourceError::InsecureRealm { host: self.host().to_owned(), target })
    }

    fn token_request(&self, mut url: Url, service: Option<&str>, scope: &str) -> RequestBuilder {
        let secret = self.credential().map(|credential| credential.secret());
        if let Some(Secret::IdentityToken(token)) = secret {
            let pairs = [
                ("grant_type", "refresh_token"),
                ("client_id", "composefs-csi"),
                ("service", service.unwrap_or_default()),
                ("scope", scope),
                ("refresh_token", token),
            ];
            return self
                .http()
                .post(url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&pairs));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", scope);
        }
        match secret {
            Some(Secret::Password { user, password }) => {
                self.http().get(url).basic_auth(user, Some(password))
            }
            _ => self.http().get(url),
        }
    }
}

/// Encodes a form; percent-encoding everything but unreserved bytes is valid for any value.
fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |b: u8| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", encode(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    #[test]
    fn forms_are_encoded() {
        assert_eq!(super::form(&[("a", "b c&d=é"), ("e", "-._~9Z")]), "a=b%20c%26d%3D%C3%A9&e=-._~9Z");
    }
}
