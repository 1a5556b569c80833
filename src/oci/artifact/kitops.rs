//! KitOps' ModelKits: tar archives from the root, described by their config, and the `Kitfile` that is made of the config.
//!
//! A ModelKit has no blob with its `Kitfile`: `kit unpack` writes it anew, with the members of
//! `pkg/artifact/kitfile.go` (read at a041892) in their order, without digests. The same bytes are made here.

use serde::Deserialize;
use serde_json::Value;

use super::yaml::{Map, Node};
use super::{ArtifactError, shown};
use crate::oci::manifest::{ArtifactKind, Manifest};

/// What `kit unpack` calls the file.
pub(super) const KITFILE: &str = "Kitfile";
/// Bytes of a Kitfile, and of the config that it is made of. It names files, and says a line or two about each. What is deeply
/// nested may be far longer as YAML than in the config.
const KITFILE_MAX: usize = 1 << 20;

/// The config. Members that a Kitfile does not have, such as digests, mean nothing here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kit {
    manifest_version: Option<String>,
    package: Option<Package>,
    model: Option<Model>,
    code: Option<Vec<Files>>,
    datasets: Option<Vec<Files>>,
    docs: Option<Vec<Files>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Package {
    name: Option<String>,
    version: Option<String>,
    description: Option<String>,
    license: Option<String>,
    authors: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Model {
    name: Option<String>,
    path: Option<String>,
    license: Option<String>,
    framework: Option<String>,
    format: Option<String>,
    version: Option<String>,
    description: Option<String>,
    parts: Option<Vec<Files>>,
    parameters: Option<Value>,
}

/// Files that belong together. Each class of them has some of the members.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Files {
    name: Option<String>,
    path: Option<String>,
    description: Option<String>,
    license: Option<String>,
    #[serde(rename = "type")]
    class: Option<String>,
    parameters: Option<Value>,
}

/// Refuses a ModelKit that is not whole: its model may be that of another one, by reference.
///
/// # Errors
/// That, and a config that cannot be used.
pub(super) fn check(manifest: &Manifest, config: &[u8]) -> Result<(), ArtifactError> {
    let kit = parsed(config)?;
    let holds_model = manifest
        .layers
        .iter()
        .any(|layer| layer.descriptor.media_type.starts_with("application/vnd.kitops.modelkit.model."));
    match kit.model.and_then(|model| model.path) {
        Some(path) if !holds_model && !path.is_empty() => {
            Err(ArtifactError::OtherKit { reference: shown(&path) })
        }
        _ => Ok(()),
    }
}

/// The Kitfile of a ModelKit.
///
/// # Errors
/// The config cannot be used, or the Kitfile would be too large.
pub(super) fn kitfile(config: &[u8]) -> Result<Vec<u8>, ArtifactError> {
    let written = document(&parsed(config)?).write(KITFILE_MAX);
    written.ok_or_else(|| unusable(&format!("its Kitfile would exceed {KITFILE_MAX} bytes")))
}

fn parsed(config: &[u8]) -> Result<Kit, ArtifactError> {
    // What is parsed takes many times its size in memory.
    if config.len() > KITFILE_MAX {
        return Err(unusable(&format!("it has {} bytes, and at most {KITFILE_MAX} are taken", config.len())));
    }
    serde_json::from_slice(config).map_err(|error| unusable(&error.to_string()))
}

fn unusable(why: &str) -> ArtifactError {
    ArtifactError::Config { kind: ArtifactKind::KitOps, why: shown(why) }
}

/// The Kitfile in the order of its members.
fn document(kit: &Kit) -> Node<'_> {
    let mut top = Map::default();
    // It is there even if nobody has said it.
    top.push("manifestVersion", Node::Text(said(&kit.manifest_version)));
    if let Some(package) = &kit.package {
        let mut map = Map::default();
        map.text("name", &package.name);
        map.text("version", &package.version);
        map.text("description", &package.description);
        map.text("license", &package.license);
        if let Some(authors) = package.authors.as_deref().filter(|authors| !authors.is_empty()) {
            map.push("authors", Node::Row(authors));
        }
        if !map.is_empty() {
            top.push("package", Node::Map(map));
        }
    }
    if let Some(model) = &kit.model {
        let mut map = Map::default();
        map.text("name", &model.name);
        map.text("path", &model.path);
        map.text("license", &model.license);
        map.text("framework", &model.framework);
        map.text("format", &model.format);
        map.text("version", &model.version);
        map.text("description", &model.description);
        map.list("parts", &model.parts, &[Member::Name, Member::Path, Member::License, Member::Class]);
        map.parameters(&model.parameters);
        top.push("model", Node::Map(map));
    }
    top.list("code", &kit.code, &[Member::Path, Member::Description, Member::License]);
    let dataset = [Member::Name, Member::Path, Member::Description, Member::License, Member::Parameters];
    top.list("datasets", &kit.datasets, &dataset);
    top.list("docs", &kit.docs, &[Member::RequiredPath, Member::Description]);
    Node::Map(top)
}

/// A member of [`Files`].
#[derive(Clone, Copy)]
enum Member {
    Name,
    Path,
    /// It is there even if it is empty.
    RequiredPath,
    Description,
    License,
    Class,
    Parameters,
}

impl<'a> Map<'a> {
    /// What is empty is left out.
    fn text(&mut self, key: &'a str, text: &'a Option<String>) {
        if !said(text).is_empty() {
            self.push(key, Node::Text(said(text)));
        }
    }

    fn parameters(&mut self, value: &'a Option<Value>) {
        if let Some(value) = value {
            self.push("parameters", Node::Value(value));
        }
    }

    fn list(&mut self, key: &'a str, all: &'a Option<Vec<Files>>, members: &[Member]) {
        let entry = |files: &'a Files| {
            let mut map = Map::default();
            for member in members {
                match member {
                    Member::Name => map.text("name", &files.name),
                    Member::Path => map.text("path", &files.path),
                    Member::RequiredPath => map.push("path", Node::Text(said(&files.path))),
                    Member::Description => map.text("description", &files.description),
                    Member::License => map.text("license", &files.license),
                    Member::Class => map.text("type", &files.class),
                    Member::Parameters => map.parameters(&files.parameters),
                }
            }
            Node::Map(map)
        };
        let all = all.as_deref().unwrap_or_default();
        if !all.is_empty() {
            self.push(key, Node::List(all.iter().map(entry).collect()));
        }
    }
}

fn said(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests;
