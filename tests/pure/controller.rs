//! The controller over its socket: what each call answers, and which codes the external-provisioner sees.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use composefs_csi::controller::provision::{Provisioner, Resolver};
use composefs_csi::controller::service::ControllerService;
use composefs_csi::controller::states::States;
use composefs_csi::csi::endpoint::Endpoint;
use composefs_csi::csi::proto::controller_client::ControllerClient;
use composefs_csi::csi::proto::controller_server::ControllerServer;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::volume_content_source::{Type, VolumeSource};
use composefs_csi::csi::proto::{
    ControllerPublishVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest, ListVolumesRequest,
    ValidateVolumeCapabilitiesRequest, VolumeContentSource,
};
use composefs_csi::csi::server::{Services, serve};
use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::reference::Reference;
use composefs_csi::oci::{Credentials, SourceError};
use composefs_csi::volume::layouts::Layouts;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::csi::{capability, connect, context};

/// A registry whose tags move at every question, and whose answers can be held back.
#[derive(Debug)]
struct Registry {
    asked: Mutex<u8>,
    gate: Semaphore,
    waiting: AtomicBool,
}

#[async_trait]
impl Resolver for Registry {
    async fn resolve(&self, image: &Reference, _: &Credentials) -> Result<Digest, SourceError> {
        self.waiting.store(true, Ordering::SeqCst);
        let _turn = self.gate.acquire().await.unwrap();
        let subject = image.to_string();
        match image.tag() {
            Some("absent") => return Err(SourceError::NotFound { subject }),
            Some("down") => {
                let (host, detail) = ("r.example".to_owned(), "refused".to_owned());
                return Err(SourceError::Unreachable { subject, host, detail });
            }
            _ => {}
        }
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        Ok(Digest::from_bytes([*asked; 32]))
    }
}

struct Cluster {
    directory: tempfile::TempDir,
    registry: Arc<Registry>,
    starts: Mutex<u32>,
}

impl Cluster {
    fn new() -> Self {
        let registry = Arc::new(Registry {
            asked: Mutex::new(0),
            gate: Semaphore::new(1),
            waiting: AtomicBool::new(false),
        });
        Self { directory: tempfile::tempdir().unwrap(), registry, starts: Mutex::new(0) }
    }

    /// A controller, another one at each call, all on the same state.
    async fn start(&self) -> ControllerClient<Channel> {
        let number = {
            let mut starts = self.starts.lock().unwrap();
            *starts += 1;
            *starts
        };
        let states = States::open(self.directory.path().join("controller")).unwrap();
        let provisioner = Provisioner::new(self.registry.clone(), states, Layouts::default());
        let services = Services::default().with(ControllerServer::new(ControllerService::new(provisioner)));
        let socket = self.directory.path().join(format!("{number}.sock"));
        let endpoint: Endpoint = socket.to_str().unwrap().parse().unwrap();
        let listening = endpoint.listen().unwrap();
        tokio::spawn(async move {
            serve(listening, services, CancellationToken::new(), Duration::ZERO).await.unwrap();
        });
        ControllerClient::new(connect(&socket).await)
    }
}

fn create(name: &str, parameters: &[(&str, &str)]) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        parameters: context(parameters),
        volume_capabilities: vec![capability(Mode::MultiNodeReaderOnly)],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_claim_is_pinned_once_even_across_a_restart() {
    let cluster = Cluster::new();
    let request = create(
        "pvc-1",
        &[("image", "r.example/a:1"), ("path", "etc"), ("csi.storage.k8s.io/pvc/name", "claim")],
    );
    let first = cluster.start().await.create_volume(request.clone()).await.unwrap().into_inner();
    let volume = first.volume.clone().unwrap();
    assert_eq!(volume.volume_id, "pvc-1");
    assert_eq!(volume.capacity_bytes, 0);
    let image = format!("r.example/a:1@sha256:{}", "01".repeat(32));
    assert_eq!(volume.volume_context, context(&[("image", &image), ("path", "etc")]));
    let mut client = cluster.start().await;
    assert_eq!(client.create_volume(request).await.unwrap().into_inner(), first);
    let other = client.create_volume(create("pvc-1", &[("image", "r.example/b:1")])).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);

    let delete = DeleteVolumeRequest { volume_id: "pvc-1".to_owned(), ..Default::default() };
    for _ in 0..2 {
        client.delete_volume(delete.clone()).await.unwrap();
    }
    client.create_volume(create("pvc-1", &[("image", "r.example/b:1")])).await.unwrap();
}

#[tokio::test]
async fn mistakes_and_outages_have_final_codes() {
    let cluster = Cluster::new();
    let mut client = cluster.start().await;
    let image = ("image", "r.example/a:1");
    let with = |change: &dyn Fn(&mut CreateVolumeRequest)| {
        let mut request = create("pvc-1", &[image]);
        change(&mut request);
        request
    };
    let clone = VolumeContentSource { r#type: Some(Type::Volume(VolumeSource { volume_id: "v".into() })) };
    let cases = [
        (create("", &[image]), Code::InvalidArgument, "name"),
        (create("pvc-1", &[]), Code::InvalidArgument, "`image`"),
        (create("pvc-1", &[image, ("size", "1")]), Code::InvalidArgument, "\"size\""),
        (with(&|r| r.volume_capabilities.clear()), Code::InvalidArgument, "volume_capabilities"),
        (
            with(&|r| r.volume_capabilities = vec![capability(Mode::MultiNodeMultiWriter)]),
            Code::InvalidArgument,
            "ReadOnlyMany",
        ),
        (with(&|r| r.volume_content_source = Some(clone.clone())), Code::InvalidArgument, "dataSource"),
        (
            with(&|r| r.mutable_parameters = context(&[("a", "b")])),
            Code::InvalidArgument,
            "VolumeAttributesClass",
        ),
        (with(&|r| r.secrets = context(&[("token", "x")])), Code::InvalidArgument, "\"token\""),
        (create("pvc-1", &[("image", "oci:/etc")]), Code::PermissionDenied, "oci:/etc"),
        (create("pvc-1", &[("image", "r.example/a:absent")]), Code::NotFound, "r.example/a:absent"),
        // Not Unavailable: the provisioner would think that a volume is on its way.
        (create("pvc-1", &[("image", "r.example/a:down")]), Code::Internal, "r.example/a:down"),
    ];
    for (request, code, word) in cases {
        let status = client.create_volume(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(word), "{:?} should hold {word:?}", status.message());
    }
}

#[tokio::test]
async fn a_second_call_for_the_same_name_is_aborted_while_the_first_is_at_work() {
    let cluster = Cluster::new();
    let mut client = cluster.start().await;
    let held = cluster.registry.gate.acquire().await.unwrap();
    let mut other = client.clone();
    let first =
        tokio::spawn(
            async move { other.create_volume(create("pvc-1", &[("image", "r.example/a:1")])).await },
        );
    while !cluster.registry.waiting.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = client.create_volume(create("pvc-1", &[("image", "r.example/a:1")])).await.unwrap_err();
    assert_eq!(second.code(), Code::Aborted);
    drop(held);
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn capabilities_are_confirmed_for_known_volumes_only() {
    let cluster = Cluster::new();
    let mut client = cluster.start().await;
    let made = client.create_volume(create("pvc-1", &[("image", "r.example/a:1")])).await.unwrap();
    let context = made.into_inner().volume.unwrap().volume_context;
    let ask = |id: &str, modes: &[Mode]| ValidateVolumeCapabilitiesRequest {
        volume_id: id.to_owned(),
        volume_context: context.clone(),
        volume_capabilities: modes.iter().map(|mode| capability(*mode)).collect(),
        ..Default::default()
    };
    let reader = [Mode::MultiNodeReaderOnly];
    let answer = client.validate_volume_capabilities(ask("pvc-1", &reader)).await.unwrap().into_inner();
    assert_eq!(answer.confirmed.unwrap().volume_capabilities.len(), 1);
    let writer = ask("pvc-1", &[Mode::MultiNodeReaderOnly, Mode::MultiNodeMultiWriter]);
    let answer = client.validate_volume_capabilities(writer).await.unwrap().into_inner();
    assert!(answer.confirmed.is_none() && answer.message.contains("ReadOnlyMany"), "{answer:?}");
    for (request, code) in [
        (ask("", &reader), Code::InvalidArgument),
        (ask("pvc-1", &[]), Code::InvalidArgument),
        (ask("pvc-2", &reader), Code::NotFound),
    ] {
        assert_eq!(client.validate_volume_capabilities(request).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn what_is_not_offered_is_unimplemented() {
    let cluster = Cluster::new();
    let mut client = cluster.start().await;
    let listed = client.list_volumes(ListVolumesRequest::default()).await.unwrap_err();
    assert_eq!(listed.code(), Code::Unimplemented);
    let attached =
        client.controller_publish_volume(ControllerPublishVolumeRequest::default()).await.unwrap_err();
    assert_eq!(attached.code(), Code::Unimplemented);
}

/// The external-provisioner takes DeadlineExceeded, Cancelled and Unavailable for a creation that may go on, and keeps the
/// claim from being deleted.
#[tokio::test]
async fn a_registry_that_does_not_answer_is_given_up_before_the_caller_gives_up() {
    let cluster = Cluster::new();
    let mut client = cluster.start().await;
    cluster.registry.gate.forget_permits(1);
    let with_deadline = || {
        let mut request = tonic::Request::new(create("pvc-1", &[("image", "r.example/a:1")]));
        // The client enforces it, too: a quarter of it is left for the answer to arrive.
        request.set_timeout(Duration::from_secs(8));
        request
    };
    let status = client.create_volume(with_deadline()).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    for part in ["r.example/a:1", "did not come within 6 s", "nothing was created", "tried again"] {
        assert!(status.message().contains(part), "{part:?} is missing in {status}");
    }
    // Nothing goes on: no other call is in the way, and the volume is as new.
    assert_eq!(client.create_volume(with_deadline()).await.unwrap_err().code(), Code::Internal);
    cluster.registry.gate.add_permits(1);
    let made = client.create_volume(with_deadline()).await.unwrap().into_inner().volume.unwrap();
    assert!(made.volume_context["image"].ends_with(&"01".repeat(32)), "{made:?}");
}

#[tokio::test]
async fn a_controller_that_ends_says_so_to_those_who_wait() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::new();
    cluster.registry.gate.forget_permits(1);
    let (states, shutdown) = (States::open(directory.path().to_owned()).unwrap(), CancellationToken::new());
    let provisioner = Provisioner::new(cluster.registry.clone(), states, Layouts::default());
    let controller = ControllerService::new(provisioner.until(shutdown.clone()));
    let services = Services::default().with(ControllerServer::new(controller));
    let socket = directory.path().join("csi.sock");
    let endpoint: Endpoint = socket.to_str().unwrap().parse().unwrap();
    let (listening, token) = (endpoint.listen().unwrap(), shutdown.clone());
    // The server waits longer than any test does.
    let server = tokio::spawn(serve(listening, services, token, Duration::from_secs(3600)));
    let mut client = ControllerClient::new(connect(&socket).await);
    let call =
        tokio::spawn(
            async move { client.create_volume(create("pvc-1", &[("image", "r.example/a:1")])).await },
        );
    while !cluster.registry.waiting.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(status.message().contains("controller is being stopped"), "{status}");
    server.await.unwrap().unwrap();
}
