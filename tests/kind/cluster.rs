//! The cluster: a client of its API, `kubectl` for what goes through streams, and a namespace for the suite.

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{
    Event, Namespace, Node, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::expected::Release;
pub use crate::objects::NAMESPACE;
use crate::objects::{self, LABEL};
use crate::registry::Registries;
use crate::settings::Settings;
use crate::signed::Signer;

/// The cluster under test.
pub struct Cluster {
    /// A client as its administrator.
    pub client: Client,
    /// What the suite was told.
    pub settings: Settings,
    /// Registries that run in the cluster.
    pub registries: Registries,
    /// Signs images for the policy of the installation.
    pub signer: Signer,
    /// Which Kubernetes it is.
    pub release: Release,
}

impl Cluster {
    /// Connects, makes the suite's namespace and starts registries there.
    pub async fn connect(settings: Settings) -> Self {
        let file = Kubeconfig::read_from(&settings.kubeconfig).expect("KUBECONFIG is readable");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("KUBECONFIG names a cluster")).expect("a client");
        let version = client.apiserver_version().await.expect("the API server answers");
        println!("kind: Kubernetes {} at {}", version.git_version, settings.kubeconfig.display());
        make_namespace(&client).await;
        let registries = Registries::start(&client, &settings).await;
        let release = Release::of(&version.minor);
        Self { client, settings, registries, signer: Signer::new(), release }
    }

    /// Objects of a kind in the suite's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Objects of a kind that have no namespace, or in all of them.
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Creates an object as it stands in a manifest.
    pub async fn create<K>(&self, api: &Api<K>, object: Value) -> K
    where
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object of its kind");
        api.create(&PostParams::default(), &object).await.expect("the API server takes the object")
    }

    /// Runs kubectl as administrator in the suite's namespace; returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|said| panic!("kubectl {arguments:?} failed: {said}"))
    }

    /// The same, with what it said on a failure.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.try_kubectl_anywhere(&[&["--namespace", NAMESPACE], arguments].concat())
    }

    /// The same where the objects say themselves which namespace they are in.
    pub fn try_kubectl_anywhere(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(&self.settings.kubeconfig).args(arguments);
        let output = command.output().expect("kubectl runs");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    /// Messages of the Events about an object of the suite's namespace, with their reasons.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let events = self.api::<Event>().list(&about).await.expect("events are listed");
        let text = |event: Event| {
            format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default())
        };
        events.into_iter().map(text).collect()
    }

    /// Waits until an Event about an object contains a text; returns the Event.
    pub async fn event(&self, name: &str, text: &str) -> String {
        let what = format!("an Event about {name} with {text:?}");
        until(&what, 120, async || self.events(name).await.into_iter().find(|event| event.contains(text)))
            .await
    }

    /// Waits until the driver itself, and not kubelet, has written an Event under `reason` about a pod; returns its
    /// message.
    pub async fn own_event(&self, pod: &str, reason: &str) -> String {
        let about = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
        until(&format!("the driver's Event {reason} about {pod}"), 120, async || {
            let events = self.api::<Event>().list(&about).await.expect("events are listed");
            let own = |event: &Event| event.reporting_component.as_deref() == Some(crate::driver::NAME);
            events.into_iter().find(own)?.message
        })
        .await
    }

    /// Removes what a scenario has left in the suite's namespace, registries aside, and waits until it is gone.
    pub async fn clear(&self) {
        let now = DeleteParams::default().grace_period(0);
        let own = ListParams::default().labels("suite!=registry");
        let marked = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
        self.api::<Pod>().delete_collection(&now, &own).await.expect("pods are deleted");
        gone(&self.api::<Pod>(), &own).await;
        self.api::<PersistentVolumeClaim>().delete_collection(&now, &own).await.expect("claims are deleted");
        gone(&self.api::<PersistentVolumeClaim>(), &own).await;
        self.api::<Secret>().delete_collection(&now, &marked).await.expect("secrets are deleted");
        self.all::<StorageClass>().delete_collection(&now, &marked).await.expect("classes are deleted");
        self.all::<Node>().delete_collection(&now, &marked).await.expect("further nodes are deleted");
        self.all::<ClusterRoleBinding>()
            .delete_collection(&now, &marked)
            .await
            .expect("bindings are deleted");
        let volumes = self.all::<k8s_openapi::api::core::v1::PersistentVolume>();
        volumes.delete_collection(&now, &marked).await.expect("volumes are deleted");
        gone(&volumes, &marked).await;
    }

    /// What an engineer would look at first after a failure.
    pub fn situation(&self) -> String {
        let look = |arguments: &[&str]| self.try_kubectl(arguments).unwrap_or_else(|said| said);
        let driver = ["logs", "-n", crate::driver::NAMESPACE, "-l", "app.kubernetes.io/name=composefs-csi"];
        [
            look(&["get", "pods", "--all-namespaces", "-o", "wide"]),
            look(&["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"]),
            look(&[&driver[..], &["--all-containers", "--prefix", "--tail=25"]].concat()),
        ]
        .join("\n")
    }
}

/// A program that the suite needs on PATH.
pub fn program(name: &str) -> PathBuf {
    crate::support::tools::installed(name)
}

/// Waits until `look` finds something; fails after three times so many seconds, which are more than it takes where
/// nothing else runs, and says what was awaited.
pub async fn until<T>(what: &str, seconds: u64, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + 3 * Duration::from_secs(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} is not there after {} s", 3 * seconds);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Waits until no object of a list is left.
async fn gone<K>(api: &Api<K>, which: &ListParams)
where
    K: Clone + Debug + DeserializeOwned + Resource,
{
    let mut left = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(360);
    while Instant::now() < deadline {
        left = api
            .list(which)
            .await
            .expect("objects are listed")
            .iter()
            .map(|object| object.name_any())
            .collect();
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("not deleted after 360 s: {left:?}");
}

/// The suite's namespace, fresh: what an earlier run left in it goes.
async fn make_namespace(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces.get_opt(NAMESPACE).await.expect("namespaces are readable").is_some() {
        namespaces.delete(NAMESPACE, &DeleteParams::default()).await.expect("the old namespace is deleted");
        until("the end of the old namespace", 180, async || {
            namespaces.get_opt(NAMESPACE).await.expect("namespaces are readable").is_none().then_some(())
        })
        .await;
    }
    let object: Namespace = serde_json::from_value(objects::namespace()).expect("a namespace");
    namespaces.create(&PostParams::default(), &object).await.expect("a namespace for the suite");
    // Pods are refused until the controller manager has given the namespace its account.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    until("the namespace's service account", 60, async || {
        accounts.get_opt("default").await.expect("service accounts are readable").map(drop)
    })
    .await;
}
