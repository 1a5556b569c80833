//! Images with what lets them start lazily: sealed, and an artifact beside each, written by hand as far as a test lies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use composefs_csi::image::composefs::each_entry;
use composefs_csi::image::entry::EntryKind;
use composefs_csi::image::lazy::{Artifact, Located, MapLayer, OffsetMap, PackedBlob, Packing, Place, pack};
use composefs_csi::image::seal::{FAITHFUL, Seal};
use composefs_csi::image::store::{NodeKey, Options, Store};
use composefs_csi::image::tree::{Rules, Stop};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::oci::limits::ImageLimits;
use composefs_csi::pull::{Caller, ImageRequest, Images as _, PullLimits, PullPolicy, StoredPart, write};
use serde_json::json;

use super::archive::archive;
use super::images::{Compression, Image, Layer, Layout};
use super::pulling::{accept_all, puller, request};

/// What the map says about where contents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Somewhere in their layer.
    Stream,
    /// The bytes of the archive.
    Ranges,
    /// Other bytes of it.
    Lies,
}

/// A layout with one image under the tag `latest`, and its artifact.
pub struct Published {
    pub layout: Layout,
    pub image: VerityDigest,
}

/// Publishes an image of one layer per set of files.
pub async fn publish(layers: &[&[(&str, &[u8])]], told: Told) -> Published {
    let compression = if told == Told::Stream { Compression::Gzip } else { Compression::None };
    let tars: Vec<Vec<u8>> = layers.iter().map(|files| archive(files)).collect();
    let stored = tars.iter().map(|tar| Layer::new(tar.clone()).stored(compression)).collect();
    let mut image = Image { layers: stored, ..Image::new(Vec::new()) };
    let erofs = composefs_of(&image).await;
    let digest = VerityDigest::of(&erofs);
    image.annotations.insert(FAITHFUL.to_owned(), digest.hex());
    let mut layout = Layout::new();
    let subject = layout.add(&image, "latest");
    let manifest = std::fs::read(layout.path().join("blobs/sha256").join(subject.digest.hex())).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let packing = if told == Told::Stream { Packing::Stream } else { Packing::Raw };
    let of_layer = |layer: &serde_json::Value| MapLayer {
        blob: layer["digest"].as_str().unwrap().parse().unwrap(),
        size: layer["size"].as_u64().unwrap(),
        packing,
    };
    let blobs: Vec<MapLayer> = manifest["layers"].as_array().unwrap().iter().map(of_layer).collect();
    let mut objects = BTreeMap::new();
    let walked = each_entry(&erofs, b"", |entry| {
        if let EntryKind::Object(object, size) = entry.kind {
            let (layer, place) = place(&tars, layers, &object, size, told);
            objects.insert(object, Located { object, size, layer, place });
        }
        Ok::<(), ()>(())
    });
    walked.unwrap().unwrap();
    let map = OffsetMap::write(&digest, &blobs, &objects);
    let blob = |bytes: &[u8]| {
        let packed = pack(bytes).unwrap();
        layout.blob("", &packed);
        PackedBlob::new(&packed, bytes.len())
    };
    let artifact = Artifact {
        subject: subject.clone(),
        seal: Seal { annotation: FAITHFUL, digest },
        image: blob(&erofs),
        map: blob(&map),
        first: None,
        revision: 0,
    };
    layout.blob("", Artifact::CONFIG);
    let artifact = layout.blob("application/vnd.oci.image.manifest.v1+json", &artifact.manifest());
    let index = "application/vnd.oci.image.index.v1+json";
    let list = json!({"schemaVersion": 2, "mediaType": index, "manifests": [artifact]}).to_string();
    let list = layout.blob(index, list.as_bytes());
    layout.tag(&list, &format!("sha256-{}", subject.digest.hex()));
    Published { layout, image: digest }
}

/// Where an object is.
fn place(
    tars: &[Vec<u8>],
    layers: &[&[(&str, &[u8])]],
    object: &VerityDigest,
    size: u64,
    told: Told,
) -> (usize, Place) {
    let is_it = |(_, content): &&(&str, &[u8])| VerityDigest::of(content) == *object;
    let found =
        layers.iter().enumerate().find_map(|(layer, files)| Some((layer, files.iter().find(is_it)?.1)));
    let (layer, content) = found.unwrap();
    let start = tars[layer].windows(content.len()).position(|bytes| bytes == content).unwrap() as u64;
    match told {
        Told::Stream => (layer, Place::Stream),
        Told::Ranges => (layer, Place::Own(start..start + size)),
        // The header before it.
        Told::Lies => (layer, Place::Own(start - 512..start - 512 + size)),
    }
}

/// The composefs image that the layers make.
async fn composefs_of(image: &Image) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let layout = Layout::of(image);
    let key = Options::new(NodeKey::from_bytes(&[1; 32]));
    let store = Arc::new(Store::open(&place.path().join("store"), key).unwrap());
    let puller = puller(&store, &[], &accept_all(), PullLimits::default());
    let request =
        ImageRequest { caller: Caller::Operator, ..request(&layout.reference("latest"), PullPolicy::Always) };
    let record = puller.ensure(&request).await.unwrap().record;
    let (parts, choice) = (StoredPart::of(&record), record.choice.clone());
    let bounds = (&ImageLimits::default(), &Stop::default());
    let built = write(&store, (&parts, &choice), Rules::Faithful, bounds, "image").unwrap();
    let mut bytes = Vec::new();
    let Ok(()) = built.each_piece(|piece| {
        bytes.extend_from_slice(piece);
        Ok::<_, Infallible>(())
    });
    bytes
}
