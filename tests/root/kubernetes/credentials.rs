//! Where credentials come from: pull secrets of pods and ServiceAccounts, kubelet's credential providers. And that none
//! of it is in the log. The registry asks for a password.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use serde_json::{Value, json};
use tonic::Status;

use super::api::{TOKEN, kubeconfig, kubeconfig_of, refusal};
use crate::support::archive::archive;
use crate::support::csi::{capability, context};
use crate::support::driver::{Machine, Plugin};
use crate::support::http::{Asked, Server};
use crate::support::images::{Image, Layout};
use crate::support::program;
use crate::support::registry::{Options, Registry};

const PASSWORD: &str = "hunter2";

/// A registry with a private image.
fn private() -> (Registry, String) {
    let registry = Registry::start(Options { user: Some(("reader", PASSWORD)), ..Options::default() });
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &[7; 100])])]));
    let reference = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    (registry, reference)
}

/// An API server that knows these objects by path.
async fn api(objects: Vec<(&'static str, Value)>) -> Server {
    Server::start(move |asked: &Asked| match objects.iter().find(|(path, _)| *path == asked.path) {
        Some((_, object)) => (200, object.to_string().into_bytes()),
        None => refusal(404, "NotFound"),
    })
    .await
}

fn pod(secrets: &[&str], account: &str) -> Value {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"},
        "spec": {"nodeName": "node-1", "serviceAccountName": account, "imagePullSecrets": secrets, "containers": []},
    })
}

fn account(secrets: &[&str]) -> Value {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "seller", "namespace": "shop"}, "imagePullSecrets": secrets,
    })
}

fn secret(key: &str, content: &[u8]) -> Value {
    let value = base64::engine::general_purpose::STANDARD.encode(content);
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": { key: value }})
}

/// Where kubelet wants a volume of the pod.
fn target(machine: &Machine, volume: &str) -> PathBuf {
    let place = machine.path().join("kubelet/pods/uid-1/volumes/kubernetes.io~csi").join(volume);
    fs::create_dir_all(&place).unwrap();
    place.join("mount")
}

fn request(machine: &Machine, volume: &str, image: &str) -> NodePublishVolumeRequest {
    let mut request = machine.publish(volume, image);
    request.target_path = target(machine, volume).display().to_string();
    for (key, value) in [
        ("pod.name", "web"),
        ("pod.namespace", "shop"),
        ("pod.uid", "uid-1"),
        ("serviceAccount.name", "seller"),
    ] {
        request.volume_context.insert(format!("csi.storage.k8s.io/{key}"), value.to_owned());
    }
    request
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<(), Status> {
    plugin.node.clone().node_publish_volume(request).await.map(drop)
}

fn ended(machine: &Machine, volume: &str) -> NodeUnpublishVolumeRequest {
    NodeUnpublishVolumeRequest {
        target_path: target(machine, volume).display().to_string(),
        ..machine.unpublish(volume)
    }
}

fn assert_no_secret(machine: &Machine) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("reader:{PASSWORD}"));
    for secret in [PASSWORD, &encoded, TOKEN, "hunter-token"] {
        assert!(!machine.log().contains(secret), "{secret} is in the log:\n{}", machine.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_of_the_pod_and_of_its_service_account() {
    let (registry, reference) = private();
    let old = json!({ registry.host(): {"username": "reader", "password": PASSWORD} }).to_string();
    let new = registry.docker_config(PASSWORD);
    let wrong = registry.docker_config("hunter-wrong");
    let directory = tempfile::tempdir().unwrap();
    for (name, of_pod, of_account) in [("pod", vec!["old"], vec![]), ("account", vec!["absent"], vec!["new"])]
    {
        let server = api(vec![
            ("/api/v1/namespaces/shop/pods/web", pod(&of_pod, "seller")),
            ("/api/v1/namespaces/shop/serviceaccounts/seller", account(&of_account)),
            ("/api/v1/namespaces/shop/secrets/old", secret(".dockercfg", old.as_bytes())),
            ("/api/v1/namespaces/shop/secrets/new", secret(".dockerconfigjson", &new)),
        ])
        .await;
        let config = kubeconfig(directory.path(), &server);
        let machine = Machine::new(&[
            "--insecure-registry",
            &registry.host(),
            "--pull-secrets",
            &config,
            "--log-level=trace",
        ]);
        let plugin = machine.start().await;
        // The volume's own Secret comes first, and a refusal is not tried again with another's.
        let mut own = request(&machine, "own", &reference);
        own.secrets.insert(".dockerconfigjson".into(), String::from_utf8(wrong.clone()).unwrap());
        let status = publish(&plugin, own).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
        assert_eq!(server.asked().len(), 0, "the API server is asked only where it matters");

        publish(&plugin, request(&machine, name, &reference)).await.unwrap();
        let asked = server.asked();
        assert!(
            asked
                .iter()
                .all(|a| a.method == "GET" && a.authorization.as_deref() == Some(&format!("Bearer {TOKEN}")))
        );

        // Who names a pod that is not here gets nothing of it.
        let mut liar = request(&machine, "liar", &reference);
        liar.volume_context.insert("csi.storage.k8s.io/pod.uid".into(), "uid-2".into());
        let before = server.asked().len();
        let status = publish(&plugin, liar).await.unwrap_err();
        assert_eq!(server.asked().len(), before, "the pod is not even looked at");
        assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
        plugin.node.clone().node_unpublish_volume(ended(&machine, name)).await.unwrap();
        assert_no_secret(&machine);
    }
}

/// A PersistentVolume is staged before any pod is known; what the pod has for its images serves the publish.
#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_serve_persistent_volumes() {
    let (registry, reference) = private();
    let new = registry.docker_config(PASSWORD);
    let server = api(vec![
        ("/api/v1/namespaces/shop/pods/web", pod(&["new"], "seller")),
        ("/api/v1/namespaces/shop/serviceaccounts/seller", account(&[])),
        ("/api/v1/namespaces/shop/secrets/new", secret(".dockerconfigjson", &new)),
    ])
    .await;
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine = Machine::new(&["--insecure-registry", &registry.host(), "--pull-secrets", &config]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    let staging = machine.path().join("kubelet/staging");
    fs::create_dir_all(&staging).unwrap();
    let mut stage = NodeStageVolumeRequest {
        volume_id: "pv-1".to_owned(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(capability(Mode::MultiNodeReaderOnly)),
        volume_context: context(&[("image", &reference)]),
        ..Default::default()
    };
    node.node_stage_volume(stage.clone()).await.unwrap();
    assert_eq!(server.asked().len(), 0, "nobody's secrets are read for no pod");

    // The author of a PersistentVolume who writes what kubelet adds, and thereby names somebody else's pod.
    let of_victim = request(&machine, "victim", &reference).volume_context;
    let staging = machine.path().join("kubelet/plugins/kubernetes.io/csi/d/other").display().to_string();
    let forged = NodeStageVolumeRequest {
        volume_id: "pv-2".to_owned(),
        staging_target_path: staging.clone(),
        volume_context: of_victim.clone(),
        ..stage.clone()
    };
    node.node_stage_volume(forged).await.unwrap();
    // No CSIDriver with podInfoOnMount: kubelet overwrites nothing at the publish either.
    let mut forged = machine.publish("attacker", &reference);
    (forged.volume_id, forged.volume_context) = ("pv-2".to_owned(), of_victim);
    let status = publish(&plugin, forged).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    assert!(machine.log().contains("is podInfoOnMount set"), "{}", machine.log());
    assert_eq!(server.asked().len(), 0, "nor are those of a pod that somebody else names");
    machine.assert_nothing_published();

    let mut of_pod = request(&machine, "web", &reference);
    of_pod.volume_id = "pv-1".to_owned();
    of_pod.volume_capability = stage.volume_capability.clone();
    of_pod.volume_context.remove("csi.storage.k8s.io/ephemeral");
    publish(&plugin, of_pod.clone()).await.unwrap();
    assert_eq!(fs::read(target(&machine, "web").join("file")).unwrap(), [7; 100]);
    let mut unpublish = ended(&machine, "web");
    unpublish.volume_id = "pv-1".to_owned();
    node.node_unpublish_volume(unpublish).await.unwrap();
    let unstage = NodeUnstageVolumeRequest {
        volume_id: "pv-1".to_owned(),
        staging_target_path: stage.staging_target_path.clone(),
    };
    node.node_unstage_volume(unstage).await.unwrap();
    machine.assert_nothing_published();

    // A Secret that was named for staging is the operator's answer; that it is wrong is said at once.
    let wrong = String::from_utf8(registry.docker_config("hunter-wrong")).unwrap();
    stage.secrets.insert(".dockerconfigjson".to_owned(), wrong);
    let status = node.node_stage_volume(stage).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    assert_no_secret(&machine);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_them_the_error_says_so() {
    let (registry, reference) = private();
    let server = Server::start(|_| refusal(403, "Forbidden")).await;
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine = Machine::new(&["--insecure-registry", &registry.host(), "--pull-secrets", &config]);
    let plugin = machine.start().await;
    let status = publish(&plugin, request(&machine, "a", &reference)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    assert!(
        status.message().contains("read pod shop/web") && status.message().contains("--pull-secrets"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_provider_buys_with_the_pods_token() {
    let (registry, reference) = private();
    let directory = tempfile::tempdir().unwrap();
    let asked = directory.path().join("asked");
    // Gives the password for the right token only.
    let script = format!(
        r#"#!/bin/sh
request=$(cat)
echo "$request" >> {}
echo "complaint with hunter-token" >&2
case "$request" in *'"serviceAccountToken":"hunter-token"'*) ;; *) exit 1;; esac
echo '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","cacheDuration":"1h","auth":{{"{}":{{"username":"reader","password":"{PASSWORD}"}}}}}}'
"#,
        asked.display(),
        registry.host()
    );
    program::write(&directory.path().join("helper"), &script);
    let config = directory.path().join("providers.yaml");
    let text = format!(
        "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n- name: helper\n  \
         matchImages: ['{}']\n  defaultCacheDuration: 1m\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  \
         tokenAttributes: {{serviceAccountTokenAudience: shop, cacheType: Token, requireServiceAccount: true}}\n",
        registry.host()
    );
    fs::write(&config, text).unwrap();
    let machine = Machine::new(&[
        "--insecure-registry",
        &registry.host(),
        &format!("--credential-provider-config={}", config.display()),
        &format!("--credential-provider-bin-dir={}", directory.path().display()),
        "--log-level=trace",
    ]);
    let plugin = machine.start().await;
    let with_token = |volume: &str, token: &str| {
        let mut request = request(&machine, volume, &reference);
        let tokens = json!({"shop": {"token": token, "expirationTimestamp": "2030-01-01T00:00:00Z"}});
        request.secrets.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), tokens.to_string());
        request
    };
    let status = publish(&plugin, request(&machine, "none", &reference)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    assert!(machine.log().contains("tokenRequests"), "{}", machine.log());
    for volume in ["a", "b"] {
        publish(&plugin, with_token(volume, "hunter-token")).await.unwrap();
    }
    let requests = fs::read_to_string(&asked).unwrap();
    assert_eq!(requests.lines().count(), 1, "the answer is kept: {requests}");
    assert!(requests.contains(&format!(r#""image":"{}/team/app""#, registry.host())), "{requests}");
    let status = publish(&plugin, with_token("other", "another")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "another token is another tenant: {status}");
    for volume in ["a", "b"] {
        plugin.node.clone().node_unpublish_volume(ended(&machine, volume)).await.unwrap();
    }
    assert_no_secret(&machine);
}

/// A registry with a public image, and one with a private image.
fn public() -> (Registry, String) {
    let registry = Registry::start(Options::default());
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &[8; 100])])]));
    let reference = registry.push(&layout.reference("latest"), "team/app:1", &[]);
    (registry, reference)
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_of_some_namespaces_leave_public_images_to_all() {
    let ((private, of_shop), (public, for_all)) = (private(), public());
    // The plugin may read nothing, and is not even to try.
    let server = Server::start(|_| refusal(403, "Forbidden")).await;
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let arguments = ["--pull-secrets", "--pull-secrets-namespace=office", &config];
    let hosts = [private.host(), public.host()].map(|host| format!("--insecure-registry={host}"));
    let machine = Machine::new(&[&arguments[..], &hosts.each_ref().map(String::as_str)].concat());
    let plugin = machine.start().await;
    publish(&plugin, request(&machine, "a", &for_all)).await.unwrap();
    // What is private has no credentials there.
    let status = publish(&plugin, request(&machine, "b", &of_shop)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status}");
    assert_eq!(server.asked().len(), 0);
    plugin.node.clone().node_unpublish_volume(ended(&machine, "a")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_keeps_back_only_what_needs_it() {
    let ((private, of_shop), (public, for_all)) = (private(), public());
    // It takes connections, and that is all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig_of(directory.path(), &format!("http://{}", silent.local_addr().unwrap()));
    let hosts = [private.host(), public.host()].map(|host| format!("--insecure-registry={host}"));
    let arguments = ["--pull-secrets", &config, &hosts[0], &hosts[1]];
    let machine = Machine::new(&arguments);
    let plugin = machine.start().await;
    // Fetched, and then found here.
    for volume in ["a", "b"] {
        publish(&plugin, request(&machine, volume, &for_all)).await.unwrap();
    }
    let status = publish(&plugin, request(&machine, "c", &of_shop)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    assert!(status.message().contains("API server has not answered"), "{status}");
    for volume in ["a", "b"] {
        plugin.node.clone().node_unpublish_volume(ended(&machine, volume)).await.unwrap();
    }
    drop(silent);
}
