//! kubelet's own `CredentialProviderConfig` (kubelet.config.k8s.io/v1), in YAML or JSON.
//!
//! Strict, as in kubelet: an unknown member is an error, because it may be a restriction.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::duration;
use crate::oci::credentials::ImageGlob;

/// The supported version of the exec protocol.
pub(super) const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";
const CONFIG: (&str, &str) = ("CredentialProviderConfig", "kubelet.config.k8s.io/v1");

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("credential provider configuration {}: {problem}; kubelet's documentation has the format", file.display())]
pub(crate) struct ConfigError {
    file: PathBuf,
    problem: String,
}

/// One plugin, and the images for which to run it.
#[derive(Debug, Clone)]
pub(super) struct Provider {
    pub name: String,
    pub program: PathBuf,
    pub images: Vec<ImageGlob>,
    pub default_cache: Duration,
    pub arguments: Vec<String>,
    pub environment: Environment,
    pub token: Option<TokenAttributes>,
}

/// Environment variables for a plugin. Their values may be secrets, so `Debug` shows only the names.
#[derive(Clone, Default)]
pub(super) struct Environment(pub Vec<(String, String)>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Which token of the pod's ServiceAccount a plugin gets (KEP-4412).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenAttributes {
    #[serde(rename = "serviceAccountTokenAudience")]
    pub audience: String,
    pub cache_type: CacheType,
    pub require_service_account: bool,
    #[serde(default, rename = "requiredServiceAccountAnnotationKeys")]
    pub required_annotations: Vec<String>,
    #[serde(default, rename = "optionalServiceAccountAnnotationKeys")]
    pub optional_annotations: Vec<String>,
}

/// By what an answer for a token is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum CacheType {
    Token,
    ServiceAccount,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    kind: String,
    api_version: String,
    providers: Vec<WireProvider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireProvider {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: String,
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<WireVariable>>,
    #[serde(default)]
    token_attributes: Option<TokenAttributes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireVariable {
    name: String,
    value: String,
}

/// Parses the file's text; `programs` is the directory of the plugins.
pub(super) fn parse(file: &Path, text: &str, programs: &Path) -> Result<Vec<Provider>, ConfigError> {
    let failed = |problem: String| ConfigError { file: file.to_owned(), problem };
    // The parser's messages quote the text around the error, which may contain a variable's value.
    let wire: Wire = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(" at line {}", at.line()));
        failed(format!("it is not a {} of {}{place}", CONFIG.0, CONFIG.1))
    })?;
    if (&*wire.kind, &*wire.api_version) != CONFIG {
        return Err(failed(format!(
            "it is a {:?} of {:?}, not {} of {}",
            wire.kind, wire.api_version, CONFIG.0, CONFIG.1
        )));
    }
    wire.providers.into_iter().map(|provider| provider.check(programs).map_err(failed)).collect()
}

impl WireProvider {
    fn check(self, programs: &Path) -> Result<Provider, String> {
        let name = self.name;
        let about = |problem: &str| format!("provider {name:?} {problem}");
        // As in kubelet: the name is the program's file name, not a path.
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', ' ', '\0']) {
            return Err(about("has a name that is not a file name"));
        }
        if self.api_version != PROTOCOL {
            return Err(about(&format!("speaks {:?}; {PROTOCOL} is understood", self.api_version)));
        }
        if self.match_images.is_empty() {
            return Err(about("has no matchImages"));
        }
        let images = self.match_images.iter().map(|glob| ImageGlob::parse(glob));
        let images = images.collect::<Result<_, _>>().map_err(|_| about("has a bad entry in matchImages"))?;
        let default_cache = duration::parse(&self.default_cache_duration)
            .ok_or_else(|| about("has a malformed defaultCacheDuration; write for example \"12h\""))?;
        if self.token_attributes.as_ref().is_some_and(|token| token.audience.is_empty()) {
            return Err(about("has an empty serviceAccountTokenAudience"));
        }
        let program = programs.join(&name);
        // Checked at the start, so that the operator learns of it and not the first pod.
        if !program.is_file() {
            return Err(about(&format!("has no program {}", program.display())));
        }
        let environment = self.env.unwrap_or_default().into_iter().map(|pair| (pair.name, pair.value));
        Ok(Provider {
            program,
            images,
            default_cache,
            arguments: self.args.unwrap_or_default(),
            environment: Environment(environment.collect()),
            token: self.token_attributes,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
  - name: helper
    matchImages: ["*.r.example", "s.example/team"]
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get, -v=2]
    env:
      - name: KEY
        value: hunter2
    tokenAttributes:
      serviceAccountTokenAudience: r.example
      cacheType: ServiceAccount
      requireServiceAccount: true
      optionalServiceAccountAnnotationKeys: [r.example/role]
"#;

    fn read(text: &str) -> Result<Vec<Provider>, String> {
        let programs = tempfile::tempdir().unwrap();
        std::fs::write(programs.path().join("helper"), "").unwrap();
        parse(Path::new("/config"), text, programs.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn kubelets_file_as_kubelet_reads_it() {
        let provider = read(GOOD).unwrap().remove(0);
        assert_eq!(provider.default_cache, Duration::from_secs(12 * 3600));
        assert_eq!(provider.arguments, ["get", "-v=2"]);
        assert!(provider.images[0].matches(&"a.r.example/x:1".parse().unwrap()));
        let token = provider.token.clone().unwrap();
        assert_eq!((&*token.audience, token.cache_type), ("r.example", CacheType::ServiceAccount));
        assert!(!format!("{provider:?}").contains("hunter2"));
        let json =
            r#"{"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1","providers":[]}"#;
        assert!(read(json).unwrap().is_empty());
    }

    #[test]
    fn whatever_is_not_understood_is_an_error_without_values() {
        for (from, to) in [
            ("kubelet.config.k8s.io/v1\n", "kubelet.config.k8s.io/v1alpha1\n"),
            ("credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1"),
            ("name: helper", "name: ../helper"),
            ("name: helper", "name: absent"),
            ("\"12h\"", "\"soon\""),
            ("args: [", "matchServiceAccounts: ["),
            ("cacheType: ServiceAccount", "cacheType: Forever"),
            ("[\"*.r.example\", \"s.example/team\"]", "[]"),
            ("value: hunter2", "value: [hunter2]"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains("/config") && !error.contains("hunter2"), "{to}: {error}");
        }
    }
}
