//! What no image of a reference could pass, told before anything is asked of a registry.
//!
//! A pod's author chooses the reference. So a node that asked the registry first would connect to any host and port
//! that a pod names, and fetch what it will never mount.

use std::path::Path;

use super::layout_directory::layout_directory;
use super::{SignaturePolicyEngine, no_policy};
use crate::oci::reference::Reference;
use crate::trust::admission::Pods;
use crate::trust::policy::Governing;
use crate::trust::settings::WithoutPolicy;

impl SignaturePolicyEngine {
    /// Why every image of the reference is refused to these pods, if it is.
    pub(super) fn outright(&self, reference: &Reference, pods: Pods<'_>) -> Option<String> {
        let directory = layout_directory(reference);
        let refused = |governing| self.refused_by(governing, reference, directory.as_deref());
        match pods {
            Pods::Of(namespace) => refused(self.policies.governing(namespace)),
            // The general policy first: most nodes have no other, and it is the one that the message is about.
            Pods::Any => {
                let general = refused(self.policies.governing(None))?;
                let mut others = self.policies.of_namespaces().into_iter();
                others.all(|governing| refused(governing).is_some()).then_some(general)
            }
        }
    }

    fn refused_by(
        &self,
        governing: Governing,
        reference: &Reference,
        directory: Option<&Path>,
    ) -> Option<String> {
        let why = match governing {
            Governing::Policy { policy, .. } => {
                let rule = policy.rule(reference, directory).warning(self.only_warns());
                let why = rule.refuses_all()?;
                format!(" by policy {}, {}: {why}", policy.file().display(), rule.scope)
            }
            Governing::Broken { why, .. } => format!(": {why}"),
            Governing::Nothing if self.without == WithoutPolicy::Accept => return None,
            Governing::Nothing => format!(": {}", no_policy(reference)),
        };
        Some(format!("image {reference} is not admitted{why}"))
    }
}
