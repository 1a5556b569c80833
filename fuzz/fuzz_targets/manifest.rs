//! Manifests and configs, with the media type that a registry announced.
//!
//! Input: one byte of choices, then a document. Held: what is accepted agrees with its announced type, is
//! within the limits, and is printed and parsed to the same again; errors are short.

#![no_main]

use composefs_csi::oci::limits::Limits;
use composefs_csi::oci::manifest::{Document, ImageConfig, Manifest};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const STATED: [Option<&str>; 4] = [
    None,
    Some(MANIFEST),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("application/vnd.oci.image.index.v1+json"),
];

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let stated = STATED[usize::from(choice % 4)];
    match Document::parse(bytes, stated) {
        Ok(Document::Image(manifest)) => {
            assert_ne!(choice % 4, 3, "an index was announced");
            assert!(manifest.layers.len() <= Limits::DEFAULT.layers);
            assert_eq!(Document::parse(&print(&manifest), stated), Ok(Document::Image(manifest)));
        }
        Ok(Document::Index(_)) => assert!(matches!(choice % 4, 0 | 3), "a manifest was announced"),
        Err(error) => assert!(error.to_string().len() < 20_000 + bytes.len()),
    }
    let layers = usize::from(choice >> 4);
    if let Ok(config) = ImageConfig::parse(bytes, layers) {
        assert_eq!(config.diff_ids.len(), layers);
        let platform = config.platform.to_string();
        let _ = platform.parse::<composefs_csi::oci::platform::Platform>();
    }
});

fn print(manifest: &Manifest) -> Vec<u8> {
    let layers: Vec<_> = manifest.layers.iter().map(|layer| &layer.descriptor).collect();
    let annotations = &manifest.annotations;
    let document =
        json!({"schemaVersion": 2, "config": manifest.config, "layers": layers, "annotations": annotations});
    serde_json::to_vec(&document).expect("a manifest")
}
