//! The Identity service: the driver's name, its capabilities, and its readiness.

use std::fmt;
use std::str::FromStr;

use tonic::{Request, Response, Status, async_trait};

use super::proto;
use super::proto::plugin_capability::{Service, Type, service};
use super::readiness::Readiness;

/// The driver's name, as in CSIDriver objects and PersistentVolumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverName(String);

/// A string that is not a driver name.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not a driver name; at most 63 letters, digits, '-' and '.', beginning and ending with a \
     letter or digit, such as csi.composefs.dev"
)]
pub struct DriverNameError(String);

impl FromStr for DriverName {
    type Err = DriverNameError;

    /// CSI 1.12, GetPluginInfoResponse: domain name notation, at most 63 characters.
    fn from_str(text: &str) -> Result<Self, DriverNameError> {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let outer = |c: char| c.is_ascii_alphanumeric();
        if text.len() <= 63 && text.starts_with(outer) && text.ends_with(outer) && text.chars().all(inner) {
            Ok(Self(text.to_owned()))
        } else {
            // The text may be long; the error must not be.
            Err(DriverNameError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The Identity service of one process.
#[derive(Debug, Clone)]
pub struct IdentityService {
    /// The driver's name.
    pub name: DriverName,
    /// Whether this process serves the Controller service.
    pub controller: bool,
    /// Shared with the code that starts the process.
    pub ready: Readiness,
}

#[async_trait]
impl proto::identity_server::Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<proto::GetPluginInfoRequest>,
    ) -> Result<Response<proto::GetPluginInfoResponse>, Status> {
        Ok(Response::new(proto::GetPluginInfoResponse {
            name: self.name.to_string(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: Default::default(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<proto::GetPluginCapabilitiesResponse>, Status> {
        let service = Service { r#type: service::Type::ControllerService.into() };
        let controller = proto::PluginCapability { r#type: Some(Type::Service(service)) };
        let capabilities = if self.controller { vec![controller] } else { Vec::new() };
        Ok(Response::new(proto::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn probe(&self, _: Request<proto::ProbeRequest>) -> Result<Response<proto::ProbeResponse>, Status> {
        Ok(Response::new(proto::ProbeResponse { ready: Some(self.ready.problem().await.is_none()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_names() {
        for good in ["csi.composefs.dev", "a", "A-1.b"] {
            assert_eq!(good.parse::<DriverName>().unwrap().to_string(), good);
        }
        for bad in ["", "-a", "a.", "a_b", "a b", "a/b", &"a".repeat(64)] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad}");
        }
    }
}
