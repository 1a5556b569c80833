//! Annotations of PersistentVolumeClaims, for the controller.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;

use super::{Cluster, ClusterError};
use crate::controller::provision::claim::{ClaimAnnotations, ClaimError};

#[async_trait]
impl ClaimAnnotations for Cluster {
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, ClaimError> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.0.clone(), namespace);
        // Only the metadata is needed.
        let claim = claims.get_metadata(name).await.map_err(|error| {
            let error = ClusterError::of("read persistentvolumeclaims".to_owned(), &error);
            ClaimError { claim: format!("{namespace}/{name}"), kind: error.kind(), why: error.to_string() }
        })?;
        Ok(claim.metadata.annotations.unwrap_or_default())
    }
}
