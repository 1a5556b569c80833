//! The Controller service: CreateVolume pins an image, DeleteVolume removes the state, ValidateVolumeCapabilities checks
//! a use.
//!
//! ListVolumes is not supported: the existing volumes are the cluster's PersistentVolumes, which this process does not
//! see. GetCapacity answers that there is no limit, because volumes take nothing from a pool. For a use that no volume
//! can have, it answers zero. Each node manages its own disk space.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status, async_trait};

use super::provision::{ProvisionError, Provisioner};
use crate::csi::capability::access;
use crate::csi::deadline::time_to_answer;
use crate::csi::proto::controller_service_capability::{Rpc, Type, rpc};
use crate::csi::proto::validate_volume_capabilities_response::Confirmed;
use crate::csi::proto::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerServiceCapability,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest,
    GetCapacityResponse, ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume,
    VolumeCapability, controller_server,
};
use crate::csi::span::note_volume;
use crate::csi::status::{create_volume_status, status};
use crate::kind::Kind;
use crate::volume::access::AccessError;
use crate::volume::id::{VolumeId, VolumeIdError};
use crate::volume::secrets;

/// The Controller service of one driver.
#[derive(Debug, Clone)]
pub struct ControllerService {
    provisioner: Arc<Provisioner>,
}

/// How long a creation waits for registry and API server, unless its caller waits less long.
const PATIENCE: Duration = Duration::from_secs(110);

const CAPABILITIES: [rpc::Type; 3] =
    [rpc::Type::CreateDeleteVolume, rpc::Type::GetCapacity, rpc::Type::SingleNodeMultiWriter];

impl ControllerService {
    /// A service that provisions with `provisioner`.
    pub fn new(provisioner: Provisioner) -> Self {
        Self { provisioner: Arc::new(provisioner) }
    }
}

fn volume_id(text: &str) -> Result<VolumeId, Status> {
    let id: VolumeId = text.parse().map_err(|error: VolumeIdError| status(error.kind(), &error))?;
    note_volume(&id);
    Ok(id)
}

fn failed(error: ProvisionError) -> Status {
    status(error.kind(), &error)
}

fn check(capabilities: &[VolumeCapability]) -> Result<(), AccessError> {
    if capabilities.is_empty() {
        return Err(AccessError::Missing("volume_capabilities"));
    }
    capabilities.iter().try_for_each(|capability| access(Some(capability)).map(drop))
}

#[async_trait]
impl controller_server::Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let patience = time_to_answer(request.metadata(), PATIENCE);
        let request = request.into_inner();
        note_volume(&request.name);
        if request.name.is_empty() {
            return Err(status(Kind::Invalid, "name is missing; the caller must name the volume"));
        }
        check(&request.volume_capabilities).map_err(|error| status(error.kind(), &error))?;
        if request.volume_content_source.is_some() {
            let text = "volumes are made from images, not from snapshots or volumes; remove the dataSource";
            return Err(status(Kind::Invalid, text));
        }
        if !request.mutable_parameters.is_empty() {
            let text = "images have no mutable parameters; remove the VolumeAttributesClass";
            return Err(status(Kind::Invalid, text));
        }
        let credentials =
            secrets::credentials(&request.secrets).map_err(|error| status(error.kind(), &error))?;
        let made = self
            .provisioner
            .create(&request.name, &request.parameters, &credentials, patience)
            .await
            .map_err(|error| create_volume_status(error.kind(), &error))?;
        // The size of an image is unrelated to the claim's request. Zero means that the capacity is unknown.
        let volume =
            Volume { volume_id: made.id.to_string(), volume_context: made.context, ..Volume::default() };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = volume_id(&request.into_inner().volume_id)?;
        self.provisioner.delete(&id).await.map_err(failed)?;
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        let id = volume_id(&request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            let error = AccessError::Missing("volume_capabilities");
            return Err(status(error.kind(), &error));
        }
        let Some(context) = self.provisioner.context(&id).await.map_err(failed)? else {
            let text = format!("volume {id} is not known to this controller; create it first");
            return Err(status(Kind::NotFound, &text));
        };
        let refused = |message: String| {
            Ok(Response::new(ValidateVolumeCapabilitiesResponse { confirmed: None, message }))
        };
        // An unsupported capability is an answer, not an error (CSI 1.12, ValidateVolumeCapabilities).
        if let Err(error) = check(&request.volume_capabilities) {
            return refused(error.to_string());
        }
        if !request.volume_context.is_empty() && request.volume_context != context {
            return refused("the volume has another volume_context".to_owned());
        }
        let confirmed = Confirmed {
            volume_context: request.volume_context,
            volume_capabilities: request.volume_capabilities,
            parameters: request.parameters,
            mutable_parameters: request.mutable_parameters,
        };
        let confirmed = Some(confirmed);
        Ok(Response::new(ValidateVolumeCapabilitiesResponse { confirmed, message: String::new() }))
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        let mut capabilities = request.volume_capabilities.iter();
        let possible = capabilities.all(|capability| access(Some(capability)).is_ok());
        let available_capacity = if possible { i64::MAX } else { 0 };
        Ok(Response::new(GetCapacityResponse { available_capacity, ..GetCapacityResponse::default() }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = |kind: rpc::Type| ControllerServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: kind.into() })),
        };
        let capabilities = CAPABILITIES.into_iter().map(capability).collect();
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }
}
