//! Fetches tokens from the service that a registry names (the distribution project's "Token
//! Authentication Specification" and its OAuth2 variant).

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, Url, header};
use serde::Deserialize;

use super::Transport;
use super::body::BodyError;
use super::client::RegistryClient;
use super::failure::{self, Asked};
use super::page;
use super::scopes::Scopes;

use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::credentials::Secret;

/// A token and how long it is valid.
pub(super) struct Token {
    pub(super) value: String,
    pub(super) lifetime: Duration,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Read apart from the token, which is good whatever is said of its lifetime.
#[derive(Deserialize)]
struct StatedLifetime {
    expires_in: Option<Seconds>,
}

/// Services write numbers of every kind, and some write them as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

/// The maximum size of a token service's answer, in bytes.
const ANSWER_MAX: usize = 256 << 10;

/// The specification's default, and the minimum for a service that states less.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// A token is renewed after this time even if the service states more.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

impl RegistryClient {
    /// Fetches a token for `scopes` from `realm`, with this client's credential.
    pub(super) async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &Scopes,
        subject: &str,
    ) -> Result<Token, SourceError> {
        let url = self.check_realm(realm, subject)?;
        let named: Vec<&str> = scopes.named.iter().map(String::as_str).collect();
        let all: Vec<&str> = std::iter::once(scopes.ours.as_str()).chain(named.iter().copied()).collect();
        match self.ask_for_token(url.clone(), service, &all, subject).await {
            // Where the names of a proxy's users mean nothing, its own may still do.
            Err(error) if error.kind() != Kind::Transient && !named.is_empty() => {
                self.ask_for_token(url, service, &named, subject).await
            }
            outcome => outcome,
        }
    }

    async fn ask_for_token(
        &self,
        url: Url,
        service: Option<&str>,
        scopes: &[&str],
        subject: &str,
    ) -> Result<Token, SourceError> {
        let service_host = url.host_str().unwrap_or(self.host()).to_owned();
        let asked_url = url.clone();
        let asked = Asked { host: &service_host, url: &asked_url };
        let request = self.token_request(url, service, scopes);
        let outcome = Transport::send(request).await;
        let response = outcome.map_err(|e| self.failed_at(asked, e, subject))?;
        if response.status() != StatusCode::OK {
            let sent = self.credential().is_some();
            return Err(failure::of_response(response, asked, subject, sent).await);
        }
        let read = failure::read_bounded(response, ANSWER_MAX).await;
        let protocol = |detail: &str| SourceError::Protocol {
            subject: subject.to_owned(),
            host: service_host.clone(),
            detail: detail.to_owned(),
        };
        let bytes = read.map_err(|e| match e {
            BodyError::Transport(e) => self.failed_at(asked, e, subject),
            BodyError::Coding(detail) => protocol(&detail),
        })?;
        if page::described(&bytes).is_some() {
            return Err(protocol("its token service answered with a web page"));
        }
        // The answer is a secret: no part of it goes into a message.
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|_| protocol("its token service did not answer with a token"))?;
        // Services of the OAuth2 variant use the second name, some use both.
        let value = answer.token.filter(|t| !t.is_empty()).or(answer.access_token);
        let value = value
            // Anything else could not stand in a header.
            .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or_else(|| protocol("its token service answered without a token"))?;
        Ok(Token { value, lifetime: lifetime(&bytes) })
    }

    /// Checks the URL that the credential goes to. The registry chooses it, so it must use TLS, unless
    /// the registry itself is reached without.
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
        // User and password in the URL would replace the credential in the request.
        if allowed && url.username().is_empty() && url.password().is_none() && url.has_host() {
            return Ok(url);
        }
        let host = url.host_str().unwrap_or_default();
        let target = failure::printable(&format!("{}://{host}", url.scheme()));
        Err(SourceError::InsecureRealm { host: self.host().to_owned(), target })
    }

    fn token_request(&self, mut url: Url, service: Option<&str>, scopes: &[&str]) -> RequestBuilder {
        let secret = self.credential().map(|credential| credential.secret());
        // Only the OAuth2 variant exchanges identity tokens.
        if let Some(Secret::IdentityToken(token)) = secret {
            let scope = scopes.join(" ");
            let pairs = [
                ("grant_type", "refresh_token"),
                ("client_id", "composefs-csi"),
                ("service", service.unwrap_or_default()),
                ("scope", &scope),
                ("refresh_token", token),
            ];
            return self
                .http()
                .post(url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&pairs));
        }
        {
            // Parameters that the realm has already stay.
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
        }
        match secret {
            Some(Secret::Password { user, password }) => {
                self.http().get(url).basic_auth(user, Some(password))
            }
            // Public repositories need a token as well.
            _ => self.http().get(url),
        }
    }
}

/// How long a token is used. Services that state nothing, too little or nonsense mean the specification's default.
fn lifetime(answer: &[u8]) -> Duration {
    let stated = serde_json::from_slice::<StatedLifetime>(answer).ok().and_then(|stated| stated.expires_in);
    let seconds = match stated {
        Some(Seconds::Number(seconds)) => Some(seconds),
        Some(Seconds::Text(text)) => text.trim().parse::<f64>().ok(),
        None => None,
    };
    let seconds = seconds.filter(|seconds| !seconds.is_nan()).unwrap_or_default();
    Duration::from_secs_f64(seconds.clamp(LIFETIME_MIN.as_secs_f64(), LIFETIME_MAX.as_secs_f64()))
}

/// Encodes a form. Percent-encoding all but unreserved bytes is valid for any value.
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
    use super::*;

    #[test]
    fn every_lifetime_is_within_bounds() {
        for (stated, seconds) in [
            ("300", 300),
            ("300.0", 300),
            ("\"300\"", 300),
            ("0", 60),
            ("-1", 60),
            ("null", 60),
            ("\"soon\"", 60),
            ("[]", 60),
            ("{\"a\":1}", 60),
            ("true", 60),
            ("1893456000", 86_400),
            ("100000000000000000000", 86_400),
            ("1e400", 60),
        ] {
            let answer = format!("{{\"token\":\"t\",\"expires_in\":{stated}}}");
            assert_eq!(lifetime(answer.as_bytes()).as_secs(), seconds, "{stated}");
            assert!(
                serde_json::from_str::<TokenAnswer>(&answer).is_ok_and(|a| a.token.is_some()),
                "{stated}"
            );
        }
        assert_eq!(lifetime(b"{}"), LIFETIME_MIN);
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "b c&d=é"), ("e", "-._~9Z")]), "a=b%20c%26d%3D%C3%A9&e=-._~9Z");
    }
}
