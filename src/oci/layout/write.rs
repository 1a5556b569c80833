//! Writes manifests into a layout. Every file is complete at any instant. Two writers at once are not supported, as in
//! other tools for layouts.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use oci_client::manifest::OciDescriptor;
use serde_json::{Map, Value};

use super::{LayoutSource, REF_NAME};
use crate::durable_file;
use crate::oci::destination::{Destination, NewManifest, NewName, Referring};
use crate::oci::digest::Digest;
use crate::oci::{Source as _, SourceError};

const INDEX: &str = "index.json";

#[async_trait]
impl Destination for LayoutSource {
    async fn put(&self, manifest: &NewManifest) -> Result<(), SourceError> {
        let (path, bytes) = (self.blob_path(&manifest.digest()), manifest.bytes.clone());
        blocking(move || replace(&path, &bytes)).await
    }

    async fn put_as(&self, manifest: &NewManifest, name: &NewName) -> Result<(), SourceError> {
        // The blob first, so that the index never names a missing one.
        self.put(manifest).await?;
        let index: Value = serde_json::from_slice(&self.part(INDEX).await?)
            .map_err(|error| self.not_a_layout(format!("its {INDEX} is not valid: {error}")))?;
        let named = rename(index, manifest, name)
            .ok_or_else(|| self.not_a_layout(format!("its {INDEX} lists no manifest to replace")))?;
        let path = self.directory.join(INDEX);
        blocking(move || replace(&path, named.to_string().as_bytes())).await
    }

    async fn put_blob(&self, bytes: Bytes) -> Result<(), SourceError> {
        let path = self.blob_path(&Digest::of(&bytes));
        blocking(move || replace(&path, &bytes)).await
    }

    async fn put_referrer(&self, manifest: &NewManifest, of: &Referring<'_>) -> Result<(), SourceError> {
        self.put(manifest).await?;
        let others = self.referrers(of.subject).await?.into_iter();
        let replaced = others.filter(|other| other.artifact_type.as_deref() == Some(of.artifact_type));
        let replaced: Vec<Digest> = replaced.map(|other| other.digest).collect();
        let index: Value = serde_json::from_slice(&self.part(INDEX).await?)
            .map_err(|error| self.not_a_layout(format!("its {INDEX} is not valid: {error}")))?;
        let listed = list(index, manifest, of.artifact_type, &replaced)
            .ok_or_else(|| self.not_a_layout(format!("its {INDEX} lists no manifests")))?;
        let path = self.directory.join(INDEX);
        blocking(move || replace(&path, listed.to_string().as_bytes())).await
    }
}

/// The index with an entry without a name, in the place of those that are `replaced`; `None` if there is no list.
fn list(mut index: Value, manifest: &NewManifest, artifact_type: &str, replaced: &[Digest]) -> Option<Value> {
    let entries = index.get_mut("manifests")?.as_array_mut()?;
    let is_replaced = |entry: &Value| {
        let digest = entry["digest"].as_str().and_then(|text| text.parse::<Digest>().ok());
        // What somebody has named stays.
        digest.is_some_and(|digest| replaced.contains(&digest) || digest == manifest.digest())
            && entry["annotations"].get(REF_NAME).is_none()
    };
    entries.retain(|entry| !is_replaced(entry));
    let mut entry = descriptor(manifest, None)?;
    entry.insert("artifactType".to_owned(), artifact_type.into());
    entries.push(entry.into());
    Some(index)
}

/// The index with `name` given to `manifest`; `None` if there is no list, or no entry to replace.
fn rename(mut index: Value, manifest: &NewManifest, name: &NewName) -> Option<Value> {
    let entries = index.get_mut("manifests")?.as_array_mut()?;
    let is_named = |entry: &Value| match name {
        NewName::Tag(tag) => entry["annotations"][REF_NAME].as_str() == Some(tag),
        NewName::PlaceOf(digest) => entry["digest"].as_str() == Some(&digest.to_string()),
    };
    let mut found = false;
    for entry in entries.iter_mut().filter(|entry| is_named(entry)) {
        let entry = entry.as_object_mut()?;
        // Platform, annotations and members that this driver does not know stay.
        entry.extend(descriptor(manifest, None)?);
        // The embedded content was that of the old manifest.
        entry.remove("data");
        found = true;
    }
    match name {
        NewName::Tag(tag) if !found => {
            let annotations = BTreeMap::from([(REF_NAME.to_owned(), tag.clone())]);
            entries.push(descriptor(manifest, Some(annotations))?.into());
            Some(index)
        }
        _ => found.then_some(index),
    }
}

/// The descriptor of a manifest, as the members of an entry. It always serialises.
fn descriptor(
    manifest: &NewManifest,
    annotations: Option<BTreeMap<String, String>>,
) -> Option<Map<String, Value>> {
    let descriptor = OciDescriptor {
        media_type: manifest.media_type.clone(),
        digest: manifest.digest().to_string(),
        size: i64::try_from(manifest.bytes.len()).ok()?,
        annotations,
        ..OciDescriptor::default()
    };
    match serde_json::to_value(descriptor) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

/// Writes a file durably, replacing one that exists.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    durable_file::replace(path, temporary, bytes)
        .map_err(|failed| SourceError::File { path: path.to_owned(), source: failed.source })
}

async fn blocking(
    work: impl FnOnce() -> Result<(), SourceError> + Send + 'static,
) -> Result<(), SourceError> {
    let lost = |error: tokio::task::JoinError| SourceError::File {
        path: INDEX.into(),
        source: io::Error::other(error.to_string()),
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index() -> Value {
        let entry = |digest: Digest, tag: &str| {
            json!({"mediaType": "old", "digest": digest.to_string(), "size": 1, "data": "x",
                   "annotations": {REF_NAME: tag, "mine": "stays"}})
        };
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        json!({"schemaVersion": 2, "manifests": [entry(a, "one"), entry(b, "two"), entry(a, "three")]})
    }

    fn manifest() -> NewManifest {
        NewManifest { media_type: "new".to_owned(), bytes: "sealed".into() }
    }

    fn digests(index: &Value) -> Vec<String> {
        let entries = index["manifests"].as_array().unwrap();
        entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_tag_moves_and_the_others_stay() {
        let new = manifest().digest().to_string();
        let (a, b) = (Digest::of(b"a").to_string(), Digest::of(b"b").to_string());
        let moved = rename(index(), &manifest(), &NewName::Tag("one".into())).unwrap();
        assert_eq!(digests(&moved), [new.clone(), b.clone(), a.clone()]);
        let entry = &moved["manifests"][0];
        assert_eq!((&entry["mediaType"], &entry["size"]), (&"new".into(), &6.into()));
        assert_eq!(entry["annotations"], json!({REF_NAME: "one", "mine": "stays"}));
        assert!(entry.get("data").is_none());
        let added = rename(index(), &manifest(), &NewName::Tag("four".into())).unwrap();
        assert_eq!(digests(&added), [a.clone(), b.clone(), a, new.clone()]);
        assert_eq!(added["manifests"][3]["annotations"][REF_NAME], "four");
        let whole = json!({"mediaType": "new", "digest": new, "size": 6, "annotations": {REF_NAME: "four"}});
        assert_eq!(added["manifests"][3].to_string(), whole.to_string(), "and nothing else, in this order");
        let placed = rename(index(), &manifest(), &NewName::PlaceOf(Digest::of(b"a"))).unwrap();
        assert_eq!(digests(&placed), [new.clone(), b, new]);
    }

    #[test]
    fn a_referrer_takes_the_place_of_its_like() {
        let new = manifest().digest().to_string();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let listed = list(index(), &manifest(), "t", &[]).unwrap();
        assert_eq!(digests(&listed), [a.to_string(), b.to_string(), a.to_string(), new.clone()]);
        assert_eq!(listed["manifests"][3]["artifactType"], "t");
        assert_eq!(list(listed.clone(), &manifest(), "t", &[]).unwrap(), listed, "once");
        let other = NewManifest { bytes: "other".into(), ..manifest() };
        let replaced = list(listed, &other, "t", &[manifest().digest(), b]).unwrap();
        let expected = [a.to_string(), b.to_string(), a.to_string(), other.digest().to_string()];
        assert_eq!(digests(&replaced), expected, "what has a name stays");
        assert!(list(json!({}), &manifest(), "t", &[]).is_none());
    }

    #[test]
    fn there_must_be_a_place() {
        assert!(rename(index(), &manifest(), &NewName::PlaceOf(Digest::of(b"c"))).is_none());
        assert!(rename(json!({}), &manifest(), &NewName::Tag("x".into())).is_none());
        assert!(rename(json!([]), &manifest(), &NewName::Tag("x".into())).is_none());
    }
}
