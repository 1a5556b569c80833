//! What the program reads and changes besides: the node's startup taint, claims' annotations.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::controller_client::ControllerClient;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{CreateVolumeRequest, GetCapacityRequest};
use serde_json::json;
use tonic::Code;

use super::api::{answer, kubeconfig, refusal};
use crate::support::archive::archive;
use crate::support::csi::{capability, context, try_connect};
use crate::support::driver::Machine;
use crate::support::http::Server;
use crate::support::images::{Image, Layout};
use crate::support::registry::{Options, Registry, Running};
use crate::support::wait::eventually;
#[tokio::test(flavor = "multi_thread")]
async fn the_startup_taint_goes_when_the_driver_is_registered() {
    let taints = json!([
        {"key": "other", "effect": "NoSchedule"},
        {"key": "csi.composefs.dev/agent-not-ready", "effect": "NoExecute"},
    ]);
    let (seen, patches) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shown = taints.clone();
    let server = Server::start(move |asked| {
        let meta = json!({"name": "node-1"});
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "/api/v1/nodes/node-1") => {
                answer(200, &json!({"apiVersion":"v1","kind":"Node","metadata":meta,"spec":{"taints":shown}}))
            }
            ("GET", "/apis/storage.k8s.io/v1/csinodes/node-1") => {
                let drivers = match seen.fetch_add(1, Ordering::SeqCst) {
                    0 => return refusal(404, "NotFound"),
                    1 => json!([]),
                    _ => json!([{"name": "csi.composefs.dev", "nodeID": "node-1"}]),
                };
                let kind = json!({"apiVersion":"storage.k8s.io/v1","kind":"CSINode","metadata":meta,"spec":{"drivers":drivers}});
                answer(200, &kind)
            }
            // Somebody else was faster the first time.
            ("PATCH", "/api/v1/nodes/node-1") => match patches.fetch_add(1, Ordering::SeqCst) {
                0 => refusal(422, "Invalid"),
                _ => answer(200, &json!({"apiVersion":"v1","kind":"Node","metadata":meta})),
            },
            _ => refusal(404, "NotFound"),
        }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(&["--startup-taint", &kubeconfig(directory.path(), &server)]);
    let _plugin = machine.start().await;
    eventually("the taint is gone", || machine.log().contains("the startup taint was removed")).await;
    let patches: Vec<_> = server.asked().into_iter().filter(|asked| asked.method == "PATCH").collect();
    assert_eq!(patches.len(), 2);
    assert_eq!(patches[1].content_type.as_deref(), Some("application/json-patch+json"));
    assert_eq!(
        patches[1].json(),
        json!([
            {"op": "test", "path": "/spec/taints", "value": taints},
            {"op": "replace", "path": "/spec/taints", "value": [taints[0]]},
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_may_name_its_image() {
    let registry = Registry::start(Options { user: Some(("u", "p")), ..Options::default() });
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &[7; 100])])]));
    let image = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    let annotated = image.clone();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/api/v1/namespaces/shop/persistentvolumeclaims/models" => {
            let annotations = json!({"csi.composefs.dev/image": annotated, "csi.composefs.dev/path": "/"});
            let metadata = json!({"name": "models", "namespace": "shop", "annotations": annotations});
            let kind =
                json!({"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":metadata});
            answer(200, &kind)
        }
        _ => refusal(404, "NotFound"),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let child = Command::new(env!("CARGO_BIN_EXE_composefs-csi"))
        .args(["controller", "--insecure-registry", &registry.host(), "--pvc-annotations"])
        .arg(kubeconfig(directory.path(), &server))
        .arg(format!("--endpoint=unix://{}", socket.display()))
        .arg(format!("--state-dir={}", directory.path().join("state").display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(120);
    let channel = loop {
        match try_connect(&socket).await {
            Ok(channel) => break channel,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut controller = ControllerClient::new(channel);
    let create = |name: &str, claim: &str, parameters: &[(&str, &str)]| {
        let mut request = CreateVolumeRequest {
            name: name.to_owned(),
            volume_capabilities: vec![capability(Mode::MultiNodeReaderOnly)],
            parameters: context(parameters),
            ..CreateVolumeRequest::default()
        };
        let config = String::from_utf8(registry.docker_config("p")).unwrap();
        request.secrets.insert(".dockerconfigjson".to_owned(), config);
        request.parameters.insert("csi.storage.k8s.io/pvc/name".to_owned(), claim.to_owned());
        request.parameters.insert("csi.storage.k8s.io/pvc/namespace".to_owned(), "shop".to_owned());
        request
    };
    let volume = controller.create_volume(create("pvc-1", "models", &[])).await.unwrap();
    let volume = volume.into_inner().volume.unwrap();
    assert!(volume.volume_context["image"].starts_with(&format!("{image}@sha256:")), "{volume:?}");

    let status =
        controller.create_volume(create("pvc-2", "models", &[("image", "r.io/x:1")])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("annotation \"csi.composefs.dev/image\""), "{status}");
    let status = controller.create_volume(create("pvc-3", "gone", &[("image", &image)])).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");

    let ask = |mode| GetCapacityRequest { volume_capabilities: vec![capability(mode)], ..Default::default() };
    let capacity = controller.get_capacity(ask(Mode::MultiNodeReaderOnly)).await.unwrap().into_inner();
    assert_eq!(capacity.available_capacity, i64::MAX);
    let capacity = controller.get_capacity(ask(Mode::MultiNodeMultiWriter)).await.unwrap().into_inner();
    assert_eq!(capacity.available_capacity, 0);
}
