//! Ollama: layers without names. Its own store has none either, so these are this driver's.

use std::collections::HashMap;

use crate::oci::manifest::Manifest;

/// A name for each layer from its class; the second of a class gets a number.
pub(super) fn names(manifest: &Manifest) -> Vec<Option<String>> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let name = |media_type| -> Option<String> {
        let class = class(media_type)?;
        let count = seen.entry(class).or_default();
        *count += 1;
        Some(match (*count, class.split_once('.')) {
            (1, _) => class.to_owned(),
            (number, Some((stem, extension))) => format!("{stem}-{number}.{extension}"),
            (number, None) => format!("{class}-{number}"),
        })
    };
    manifest.layers.iter().map(|layer| layer.descriptor.media_type.as_str()).map(name).collect()
}

fn class(media_type: &str) -> Option<&'static str> {
    Some(match media_type.strip_prefix("application/vnd.ollama.image.")? {
        "model" => "model.gguf",
        "projector" => "projector.gguf",
        "adapter" => "adapter.gguf",
        "template" => "template",
        "system" => "system",
        "params" => "params.json",
        "messages" => "messages.json",
        "license" => "LICENSE",
        _ => return None,
    })
}
