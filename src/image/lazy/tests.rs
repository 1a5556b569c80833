//! Maps, lists and artifacts, sound and hostile.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::ops::Range;

use super::*;
use crate::image::composefs::{ImageBytes, write_image};
use crate::image::entry::{EntryKind, LayerEntry, Meta};
use crate::image::seal::{FAITHFUL, MERGED, Seal};
use crate::image::tree::{Builder, Rules, Stop};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::Descriptor;

const LIMITS: ImageLimits = ImageLimits::DEFAULT;

fn object(number: u8) -> VerityDigest {
    VerityDigest::of(&[number; 100])
}

fn layer(size: u64, packing: Packing) -> MapLayer {
    MapLayer { blob: Digest::of(b"layer"), size, packing }
}

fn located(number: u8, layer: usize, size: u64, place: Place) -> Located {
    Located { object: object(number), size, layer, place }
}

fn written(layers: &[MapLayer], objects: &[Located]) -> Vec<u8> {
    let objects: BTreeMap<_, _> = objects.iter().map(|one| (one.object, one.clone())).collect();
    OffsetMap::write(&object(0), layers, &objects)
}

fn read(bytes: &[u8]) -> Result<OffsetMap, LazyError> {
    OffsetMap::read(bytes.to_vec().into(), &LIMITS)
}

/// Three layers, and an object of each kind.
fn sound() -> (Vec<MapLayer>, Vec<Located>) {
    let layers = vec![layer(1000, Packing::Raw), layer(1000, Packing::Zstd), layer(7, Packing::Stream)];
    let objects = vec![
        located(1, 0, 300, Place::Own(512..812)),
        located(2, 1, 5000, Place::Own(0..990)),
        located(3, 1, 65, Place::Shared(990..1000, 400)),
        located(4, 2, u64::MAX >> 24, Place::Stream),
    ];
    (layers, objects)
}

#[test]
fn what_is_written_is_read_and_found() {
    let (layers, objects) = sound();
    let bytes = written(&layers, &objects);
    let map = read(&bytes).unwrap();
    assert_eq!((map.image(), map.layers(), map.len()), (object(0), &layers[..], 4));
    for one in &objects {
        assert_eq!(map.get(&one.object).as_ref(), Some(one));
    }
    assert_eq!(map.get(&object(9)), None);
    let sorted: Vec<_> = map.objects().map(|one| one.object).collect();
    assert!(sorted.is_sorted());
    assert_eq!(map.bytes(), objects.iter().map(|one| one.size).sum::<u64>());
    assert!(bytes.len() as u64 <= OffsetMap::bytes_max(&LIMITS));
    let none = read(&written(&layers, &[])).unwrap();
    assert!(none.is_empty() && none.get(&object(1)).is_none());
}

#[test]
fn what_is_cut_or_longer_is_refused() {
    let (layers, objects) = sound();
    let bytes = written(&layers, &objects);
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{length}");
    }
    assert!(read(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn what_cannot_be_is_refused() {
    let (layers, objects) = sound();
    let refused = |one: Located, why: &str| {
        let error = read(&written(&layers, &[one])).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("seal --lazy"), "{error}");
    };
    let own = |number, layer, size, range: Range<u64>| located(number, layer, size, Place::Own(range));
    let cannot = "where it cannot be";
    refused(own(1, 3, 10, 0..10), "a layer that is not there");
    refused(own(1, 0, 10, 991..1001), cannot);
    refused(own(1, 0, 11, 0..10), cannot);
    refused(own(1, 1, 10, 5..5), cannot);
    refused(own(1, 1, 0, 0..5), cannot);
    refused(own(1, 2, 7, 0..7), cannot);
    refused(located(1, 0, 10, Place::Shared(0..10, 0)), cannot);
    refused(located(1, 1, 10, Place::Shared(0..10, u64::MAX)), cannot);
    refused(located(1, 1, 10, Place::Shared(0..10, 16 << 20)), cannot);
    refused(located(1, 2, 0, Place::Stream), cannot);
    refused(located(1, 2, 3 << 40, Place::Stream), "too much");
    // The same object twice, and objects out of order.
    let bytes = written(&layers, &objects[..2]);
    let (head, records) = bytes.split_at(bytes.len() - 144);
    let (first, second) = records.split_at(72);
    for other in [[head, first, first].concat(), [head, second, first].concat()] {
        assert!(read(&other).unwrap_err().to_string().contains("not sorted"));
    }
}

/// Each field of header, layer and record that has one meaning.
#[test]
fn fields_of_another_version_are_refused() {
    let (layers, objects) = sound();
    let bytes = written(&layers[..1], &objects[..1]);
    for (at, with, why) in [
        (0, 1, "does not begin as one"),
        (8, 2, "is of version 2"),
        (12, 2, "another algorithm"),
        (16, 2, "instead of"),
        (19, 255, "too many"),
        (20, 1, "another algorithm"),
        (24, 2, "instead of"),
        (31, 255, "too many"),
        (64 + 40, 3, "no known form"),
        (64 + 44, 1, "no known form"),
        (64 + 48 + 32, 1, "not there"),
        (64 + 48 + 36, 3, "no known kind"),
        (64 + 48 + 56, 1, "no known kind"),
        (64 + 48 + 47, 255, "where it cannot be"),
    ] {
        let mut other = bytes.clone();
        other[at] = with;
        let error = read(&other).unwrap_err().to_string();
        assert!(error.contains(why), "{at}: {error}");
    }
}

#[test]
fn limits_of_images_are_those_of_maps() {
    let (layers, objects) = sound();
    let bytes = written(&layers, &objects);
    for limits in [ImageLimits { layers: 2, ..LIMITS }, ImageLimits { inodes: 3, ..LIMITS }] {
        assert!(OffsetMap::read(bytes.clone().into(), &limits).unwrap_err().to_string().contains("too many"));
    }
}

#[test]
fn content_is_read_from_its_range() {
    let (one, two) = (vec![1; 700], vec![2; 300]);
    let frames = [zstd::encode_all(&one[..], 3).unwrap(), zstd::encode_all(&two[..], 3).unwrap()].concat();
    let both = [one, two].concat();
    let content = |packing, place, size, range: &[u8]| {
        let (one, mut found) = (located(1, 0, size, place), Vec::new());
        one.content(packing, range)?.read_to_end(&mut found)?;
        Ok::<_, std::io::Error>(found)
    };
    let own = Place::Own(0..1);
    assert_eq!(content(Packing::Zstd, own.clone(), 1000, &frames).unwrap(), both);
    assert_eq!(content(Packing::Zstd, own.clone(), 10, &frames).unwrap(), vec![1; 10], "never more");
    assert_eq!(content(Packing::Zstd, Place::Shared(0..1, 650), 100, &frames).unwrap(), both[650..750]);
    assert_eq!(content(Packing::Raw, own.clone(), 5, b"1234567").unwrap(), b"12345");
    assert_eq!(content(Packing::Zstd, Place::Shared(0..1, 1001), 10, &frames).unwrap(), b"");
    assert!(content(Packing::Zstd, own.clone(), 10, b"no frame").is_err());
    assert!(content(Packing::Stream, own, 10, &frames).is_err());
    assert!(content(Packing::Zstd, Place::Stream, 10, &frames).is_err());
}

#[test]
fn blobs_are_as_large_as_they_say() {
    let packed = pack(&[7; 5000]).unwrap();
    assert_eq!(packed, pack(&[7; 5000]).unwrap());
    assert_eq!(unpack(&packed[..], 5000, "map").unwrap(), [7; 5000]);
    for (packed, size, why) in [
        (&packed[..], 4999, "more than the 4999"),
        (&packed[..], 5001, "5000 of the 5001"),
        (&packed[..packed.len() - 1], 5000, "cannot be decompressed"),
        (b"nonsense", 5000, "cannot be decompressed"),
    ] {
        let error = unpack(packed, size, "map").unwrap_err().to_string();
        assert!(error.contains(why) && error.starts_with("its map"), "{error}");
    }
}

#[test]
fn lists_are_lines_of_digests() {
    let list = FirstList::of([object(2), object(1), object(2)]);
    assert_eq!(list.objects(), [object(2), object(1)]);
    assert_eq!(FirstList::read(list.write().as_bytes()).unwrap(), list);
    assert_eq!(FirstList::read(b"").unwrap(), FirstList::default());
    assert_eq!(list.clone().only(|one| *one == object(1)).objects(), [object(1)]);
    let upper = object(1).hex().to_uppercase();
    for bad in ["x", &upper, &format!("{}\n\n{}", object(1), object(2)), "\u{e9}"] {
        let error = FirstList::read(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("in line"), "{error}");
    }
    let long = vec![b'0'; FirstList::BYTES_MAX as usize + 1];
    assert!(matches!(FirstList::read(&long), Err(LazyError::TooLarge { .. })));
}

fn artifact() -> Artifact {
    let subject = Descriptor {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        digest: Digest::of(b"subject"),
        size: 7,
        annotations: BTreeMap::new(),
    };
    let blob = |name: &[u8]| PackedBlob::new(name, 100);
    let seal = Seal { annotation: FAITHFUL, digest: object(0) };
    let (image, map, first) = (blob(b"image"), blob(b"map"), Some(blob(b"first")));
    Artifact { subject, seal, image, map, first, revision: 3 }
}

#[test]
fn an_artifact_is_what_its_manifest_says() {
    let subject = Digest::of(b"subject");
    let plain = Artifact {
        first: None,
        revision: 0,
        seal: Seal { annotation: MERGED, digest: object(1) },
        ..artifact()
    };
    for artifact in [artifact(), plain] {
        let manifest = artifact.manifest();
        assert_eq!(Artifact::parse(&manifest, &subject).unwrap(), Some(artifact.clone()));
        assert_eq!(Artifact::parse(&manifest, &Digest::of(b"other")).unwrap(), None, "about another image");
    }
    let text = String::from_utf8(artifact().manifest()).unwrap();
    let elsewise = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Artifact::parse(text.replace(from, to).as_bytes(), &subject)
    };
    // Of another form: somebody else's, and no fault of this one.
    for (from, to) in [
        ("application/vnd.composefs.metadata.v1", "application/x"),
        ("application/vnd.composefs.erofs.v1+zstd", "application/vnd.composefs.signature.v1+pkcs7"),
        ("\"layers\":[", "\"layers\":7,\"x\":["),
    ] {
        assert_eq!(elsewise(from, to).unwrap(), None, "{to}");
    }
    assert_eq!(Artifact::parse(b"nonsense", &subject).unwrap(), None);
    let long =
        text.replace("\"schemaVersion\"", &format!("\"x\":\"{}\",\"y\"", "x".repeat(Artifact::MANIFEST_MAX)));
    assert_eq!(Artifact::parse(long.as_bytes(), &subject).unwrap(), None);
    for (from, to, why) in [
        ("offset-map", "map-of-offsets", "an image, a map and at most a list"),
        ("first-uses", "last-uses", "an image, a map and at most a list"),
        (FAITHFUL, "x", "by one annotation"),
        (&*object(0).hex(), "sha256:0", "is no digest"),
        ("uncompressed-size", "size", "how large a layer is"),
        ("\"100\"", "\"-1\"", "how large a layer is"),
        ("\"100\"", "\"1073741825\"", "larger than the 1073741824 bytes"),
        ("\"3\"", "\"three\"", "is no number"),
    ] {
        let error = elsewise(from, to).unwrap_err().to_string();
        assert!(error.contains(why), "{to}: {error}");
    }
}

fn image(objects: &[(u8, u64)]) -> ImageBytes {
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    for (number, size) in objects {
        let kind = EntryKind::Object(object(*number), *size);
        for copy in ["a", "b"] {
            let path = format!("{copy}{number}").into_bytes().into();
            layer
                .apply(LayerEntry {
                    path,
                    meta: Meta { mode: 0o4755, ..Meta::default() },
                    kind: kind.clone(),
                })
                .unwrap();
        }
    }
    layer.end().unwrap();
    write_image(builder.finish().unwrap()).unwrap()
}

#[test]
fn a_map_has_exactly_the_objects_of_its_image() {
    let image = image(&[(1, 300), (2, 5000)]);
    let checked = |objects: &[(u8, u64)]| {
        let layers = [layer(7, Packing::Stream)];
        let objects: Vec<_> =
            objects.iter().map(|(number, size)| located(*number, 0, *size, Place::Stream)).collect();
        check(&image.bytes, &read(&written(&layers, &objects)).unwrap(), &LIMITS, &Stop::default())
    };
    let found = checked(&[(1, 300), (2, 5000)]).unwrap();
    assert_eq!((found.inodes, found.file_bytes), (image.inodes, image.file_bytes));
    assert!(found.powers.privileged_file.is_some() && found.powers.special_file.is_none());
    for (objects, why) in [
        (&[(1, 300)][..], "other objects than the image"),
        (&[(1, 300), (2, 5000), (3, 1)], "other objects than the image"),
        (&[(1, 300), (3, 5000)], "other objects than the image"),
        (&[], "other objects than the image"),
        (&[(1, 301), (2, 5000)], "301 bytes, and the image 300"),
    ] {
        let error = checked(objects).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let map = read(&written(&[], &[])).unwrap();
    assert!(matches!(check(b"nonsense", &map, &LIMITS, &Stop::default()), Err(LazyError::Image(_))));
    let small = ImageLimits { inodes: 3, ..LIMITS };
    assert!(matches!(check(&image.bytes, &map, &small, &Stop::default()), Err(LazyError::Tree(_))));
}
