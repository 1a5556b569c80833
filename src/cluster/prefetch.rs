//! The kinds `ImagePrefetch` and `NodeImageCache` of the group `csi.composefs.dev`, as the chart defines them.
//!
//! [`watch`] follows them and tells what changes, [`node`] is for a node, [`controller`] for the controller.

use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde::de::DeserializeOwned;

use crate::prefetch::wish::Prefetch;

pub(crate) mod controller;
pub(crate) mod node;
pub(crate) mod watch;

const GROUP: &str = "csi.composefs.dev";
const VERSION: &str = "v1alpha1";

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

fn image_prefetches() -> ApiResource {
    resource("ImagePrefetch", "imageprefetches")
}

fn node_image_caches() -> ApiResource {
    resource("NodeImageCache", "nodeimagecaches")
}

/// A part of an object; its default if it is not there, and an error if it is something else.
fn part<T: DeserializeOwned + Default>(object: &DynamicObject, name: &str) -> Result<T, serde_json::Error> {
    match object.data.get(name) {
        Some(value) => T::deserialize(value),
        None => Ok(T::default()),
    }
}

/// An ImagePrefetch; `None` if it is not as the CRD says, which concerns nobody else's.
fn prefetch(object: DynamicObject) -> Option<Prefetch> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let parsed = serde_json::from_value(spec).and_then(|spec| Ok((spec, part(&object, "status")?)));
    let metadata = object.metadata;
    let (namespace, name) = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
    let (spec, status) = parsed
        .inspect_err(|error| tracing::warn!("ImagePrefetch {namespace}/{name} cannot be read: {error}"))
        .ok()?;
    Some(Prefetch {
        uid: metadata.uid?,
        namespace,
        name,
        generation: metadata.generation.unwrap_or_default(),
        version: metadata.resource_version.unwrap_or_default(),
        created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
        spec,
        status,
    })
}
