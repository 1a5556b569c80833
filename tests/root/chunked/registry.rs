//! A registry of zstd:chunked images that counts the bytes of its blobs, and treats ranges as a test likes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use composefs_csi::oci::digest::Digest;
use serde_json::{Value, json};

use crate::support::chunked::ChunkedLayer;
use crate::support::impostor::{Answer, Asked, Impostor};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a registry makes of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// 206 and what was asked for.
    Served,
    /// 200 and all of it.
    Ignored,
    /// This status.
    Refused(u16),
    /// 206 for so many of them, and then 200.
    ServedUntil(usize),
    /// 206 with the bytes before.
    Shifted,
}

#[derive(Debug)]
struct Shelf {
    blobs: HashMap<String, Vec<u8>>,
    tags: HashMap<String, String>,
    ranges: Ranges,
    served: usize,
    /// How long each range is waited for.
    delay: Duration,
    /// Users who may read; everybody if there are none.
    users: Vec<&'static str>,
}

/// A running registry.
pub struct ChunkedRegistry {
    server: Impostor,
    shelf: Arc<Mutex<Shelf>>,
}

/// What a pull has cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of all answers with blobs, configs left out.
    pub bytes: usize,
    /// Of these requests, those for ranges.
    pub ranges: usize,
    /// And those for whole blobs.
    pub whole: usize,
}

impl ChunkedRegistry {
    pub async fn start(users: &[&'static str]) -> Self {
        let shelf = Shelf {
            blobs: HashMap::new(),
            tags: HashMap::new(),
            ranges: Ranges::Served,
            served: 0,
            delay: Duration::ZERO,
            users: users.to_vec(),
        };
        let shelf = Arc::new(Mutex::new(shelf));
        let answering = Arc::clone(&shelf);
        let server = Impostor::start(move |asked| answering.lock().unwrap().answer(asked)).await;
        Self { server, shelf }
    }

    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    pub fn set(&self, ranges: Ranges) {
        let mut shelf = self.shelf.lock().unwrap();
        (shelf.ranges, shelf.served) = (ranges, 0);
    }

    /// From now on each range is answered after so long.
    pub fn delay(&self, delay: Duration) {
        self.shelf.lock().unwrap().delay = delay;
    }

    /// The most ranges that were waited for at a time, counted anew from here.
    pub fn most_at_once(&self) -> usize {
        self.server.most_waiting()
    }

    /// Offers an image of these layers, whose config claims the DiffIDs of their archives; returns its reference.
    pub fn offer(&self, tag: &str, layers: &[&ChunkedLayer]) -> String {
        self.offer_as(tag, layers, |layer| Digest::of(&layer.blob))
    }

    /// The same with a manifest that states these digests of the blobs.
    pub fn offer_as(
        &self,
        tag: &str,
        layers: &[&ChunkedLayer],
        named: impl Fn(&ChunkedLayer) -> Digest,
    ) -> String {
        let mut shelf = self.shelf.lock().unwrap();
        let described = layers.iter().map(|layer| {
            let digest = named(layer);
            shelf.blobs.insert(digest.to_string(), layer.blob.clone());
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": digest,
                "size": layer.blob.len(), "annotations": layer.annotations,
            })
        });
        let described: Vec<_> = described.collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(&layer.tar)).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        shelf.put(tag, ("application/vnd.oci.image.config.v1+json", &config), &json!(described));
        format!("{}/app:{tag}", self.host())
    }

    /// Offers an artifact of one layer, with more annotations than its own.
    pub fn offer_artifact(
        &self,
        tag: &str,
        (config_type, media_type): (&str, &str),
        layer: &ChunkedLayer,
        more: &[(&str, &str)],
    ) -> String {
        let mut shelf = self.shelf.lock().unwrap();
        let mut annotations = layer.annotations.clone();
        annotations.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let digest = Digest::of(&layer.blob);
        shelf.blobs.insert(digest.to_string(), layer.blob.clone());
        let described = json!([{
            "mediaType": media_type, "digest": digest, "size": layer.blob.len(), "annotations": annotations,
        }]);
        shelf.put(tag, (config_type, &json!({})), &described);
        format!("{}/app:{tag}", self.host())
    }

    /// What was fetched of layers since the last call.
    pub fn cost(&self) -> Cost {
        let shelf = self.shelf.lock().unwrap();
        let mut cost = Cost::default();
        for asked in self.server.take_all() {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            let Some(blob) =
                shelf.blobs.get(name).filter(|blob| asked.path.contains("/blobs/") && blob[0] != b'{')
            else {
                continue;
            };
            match (asked.range, shelf.ranges) {
                (Some((first, last)), Ranges::Served | Ranges::Shifted | Ranges::ServedUntil(_)) => {
                    cost.bytes += last + 1 - first;
                    cost.ranges += 1;
                }
                (Some(_), Ranges::Refused(_)) => cost.ranges += 1,
                (None, _) | (Some(_), Ranges::Ignored) => {
                    cost.bytes += blob.len();
                    cost.whole += 1;
                }
            }
        }
        cost
    }

    /// Ranges that were asked for since the last call: first and last byte.
    pub fn ranges(&self) -> Vec<(usize, usize)> {
        self.server.take_all().into_iter().filter_map(|asked| asked.range).collect()
    }
}

impl Shelf {
    /// Keeps a manifest of described layers, and its config.
    fn put(&mut self, tag: &str, (config_type, config): (&str, &Value), layers: &Value) {
        let config = config.to_string().into_bytes();
        let config_digest = Digest::of(&config).to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": config_type, "digest": config_digest, "size": config.len()},
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(&manifest).to_string();
        self.blobs.insert(config_digest, config);
        self.blobs.insert(digest.clone(), manifest);
        self.tags.insert(tag.to_owned(), digest);
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        let user = asked.user.as_deref();
        if !self.users.is_empty() && user.is_none_or(|user| !self.users.contains(&user)) {
            return Answer::status(401).with("www-authenticate", "Basic realm=\"tests\"");
        }
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        let name = self.tags.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let Some(bytes) = self.blobs.get(&name) else { return Answer::status(404) };
        if asked.path.contains("/manifests/") {
            return Answer::body(MANIFEST, bytes).with("docker-content-digest", &name);
        }
        let Some((first, last)) = asked.range else { return Answer::body("application/octet-stream", bytes) };
        self.served += 1;
        let (shift, served) = match self.ranges {
            Ranges::Served => (0, true),
            Ranges::Shifted => (1, true),
            Ranges::ServedUntil(count) => (0, self.served <= count),
            Ranges::Ignored => (0, false),
            Ranges::Refused(status) => return Answer::status(status),
        };
        if !served {
            return Answer::body("application/octet-stream", bytes);
        }
        let part = &bytes[first - shift.min(first)..=last - shift.min(first)];
        let said = format!("bytes {first}-{last}/{}", bytes.len());
        let answer = Answer::body("application/octet-stream", part).with("content-range", &said);
        Answer { status: 206, after: self.delay, ..answer }
    }
}

/// Files of an image, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A layer of these files.
pub fn layer(files: &Files) -> ChunkedLayer {
    let members: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    crate::support::chunked::chunked(&crate::support::archive::archive(&members), Default::default())
}
