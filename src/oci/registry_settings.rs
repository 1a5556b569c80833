//! What the files of the node's settings say about registries: credentials, certificate authorities, and which
//! registries are reached by plain HTTP.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Certificate;

use super::SourceError;
use super::credentials::Credentials;
use super::files::Files;
use super::reference::canonical_host;
use super::settings::SourceSettings;

/// How registries are reached, as far as files say so.
#[derive(Debug)]
pub(super) struct Reach {
    /// Certificate authorities trusted in addition to the system's.
    pub(super) authorities: Vec<Certificate>,
    /// Registries (`HOST[:PORT]`) reached by plain HTTP, as references spell them.
    pub(super) insecure: BTreeSet<String>,
}

impl Reach {
    pub(super) fn read(settings: &SourceSettings, files: &mut Files) -> Result<Self, SourceError> {
        let mut authorities = Vec::new();
        for path in &settings.ca_files {
            let pem = read(files, "registry CA file", path)?;
            authorities.extend(parse_authorities(path, &pem)?);
        }
        let mut insecure = settings.insecure_registries.clone();
        if let Some(path) = &settings.insecure_file {
            let text = read(files, "file of insecure registries", path)?;
            insecure.extend(hosts(&String::from_utf8_lossy(&text)));
        }
        // As references spell them.
        let insecure = insecure.iter();
        let insecure =
            insecure.map(|host| canonical_host(host).unwrap_or_else(|| host.to_ascii_lowercase())).collect();
        Ok(Self { authorities, insecure })
    }
}

/// The node's own credentials.
pub(super) fn read_credentials(
    settings: &SourceSettings,
    files: &mut Files,
) -> Result<Credentials, SourceError> {
    let given = settings.default_credentials.clone();
    let Some(path) = &settings.auth_file else { return Ok(given) };
    let json = read(files, "auth file", path)?;
    // The message contains no part of the file, which holds secrets.
    let parsed = Credentials::parse(&json).map_err(|error| refused("auth file", path, &error.to_string()))?;
    Ok(parsed.and(given))
}

/// One host on a line. Empty lines and comments (`#`) say nothing.
fn hosts(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned)
}

fn parse_authorities(path: &Path, pem: &[u8]) -> Result<Vec<Certificate>, SourceError> {
    let refuse = |problem: &str| refused("registry CA file", path, problem);
    let found = Certificate::from_pem_bundle(pem).map_err(|e| refuse(&format!("is not valid PEM: {e}")))?;
    if found.is_empty() {
        return Err(refuse("holds no certificate in PEM form"));
    }
    Ok(found)
}

fn read(files: &mut Files, what: &str, path: &Path) -> Result<Vec<u8>, SourceError> {
    files.read(path).map_err(|error| refused(what, path, &format!("cannot be read: {error}")))
}

fn refused(what: &str, path: &Path, problem: &str) -> SourceError {
    SourceError::Settings { detail: format!("{what} {}: {problem}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_listed_by_line() {
        let text = "a.example:5000\n\n# of the lab\n  B.example # and its neighbour\n";
        assert_eq!(hosts(text).collect::<Vec<_>>(), ["a.example:5000", "B.example"]);
        assert_eq!(hosts("").count(), 0);
    }
}
