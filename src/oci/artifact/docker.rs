//! Docker Model Runner: names of models whose layers have none, as the Runner itself gives them.

use crate::oci::manifest::Manifest;

/// What the Runner calls each layer in its bundle. Layers that state a name keep that one.
pub(super) fn names(manifest: &Manifest) -> Vec<Option<String>> {
    let types = || manifest.layers.iter().map(|layer| class(&layer.descriptor.media_type));
    let total = |wanted: Class| types().filter(|class| *class == Some(wanted)).count();
    let (gguf, safetensors) = (total(Class::Gguf), total(Class::Safetensors));
    let (mut guf, mut safe) = (0, 0);
    types()
        .map(|class| {
            Some(match class? {
                Class::Gguf => {
                    guf += 1;
                    shard("gguf", guf, gguf)
                }
                Class::Safetensors => {
                    safe += 1;
                    shard("safetensors", safe, safetensors)
                }
                Class::Projector => "model.mmproj".to_owned(),
                Class::Template => "template.jinja".to_owned(),
                Class::License => "LICENSE".to_owned(),
            })
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Gguf,
    Safetensors,
    Projector,
    Template,
    License,
}

fn class(media_type: &str) -> Option<Class> {
    Some(match media_type.strip_prefix("application/vnd.docker.ai.")? {
        gguf if gguf.starts_with("gguf.") => Class::Gguf,
        "safetensors" => Class::Safetensors,
        "mmproj" => Class::Projector,
        "chat.template.jinja" => Class::Template,
        "license" => Class::License,
        _ => return None,
    })
}

fn shard(extension: &str, number: usize, of: usize) -> String {
    if of == 1 { format!("model.{extension}") } else { format!("model-{number:05}-of-{of:05}.{extension}") }
}
