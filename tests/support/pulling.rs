//! The library's own puller, as the program makes it, and what a pod asks it for.

use std::sync::Arc;

use composefs_csi::image::access::AccessRule;
use composefs_csi::image::store::Store;
use composefs_csi::oci::choice::Choice;
use composefs_csi::oci::platform::Platform;
use composefs_csi::oci::{Credentials, SourceSettings, Sources};
use composefs_csi::pull::{Caller, ImageRequest, PullLimits, PullPolicy, Puller, Watch};
use composefs_csi::trust::metrics::TrustMetrics;
use composefs_csi::trust::{SignaturePolicyEngine, TrustSettings, WithoutPolicy};

/// Trust for tests that are about something else.
pub fn accept_all() -> TrustSettings {
    TrustSettings { without_policy: WithoutPolicy::Accept, ..TrustSettings::default() }
}

/// A puller into `store` that speaks plain HTTP to `hosts`.
pub fn puller(store: &Arc<Store>, hosts: &[String], trust: &TrustSettings, limits: PullLimits) -> Puller {
    let settings = SourceSettings {
        insecure_registries: hosts.iter().cloned().collect(),
        proxy_from_environment: false,
        ..SourceSettings::default()
    };
    let engine = Arc::new(SignaturePolicyEngine::new(trust, TrustMetrics::default()));
    let sources = Sources::new(&settings).unwrap();
    Puller::new(Arc::clone(store), sources, engine, AccessRule::default(), limits)
}

/// A pod of the namespace `shop`, without credentials, wants `image` for a new volume.
pub fn request(image: &str, policy: PullPolicy) -> ImageRequest {
    ImageRequest {
        reference: image.parse().unwrap(),
        choice: Choice::default(),
        policy,
        platform: Platform::host(),
        caller: Caller::Pod { namespace: Some("shop".to_owned()) },
        pinned: None,
        noexec: false,
        credentials: Credentials::none(),
        watch: Watch::default(),
    }
}
