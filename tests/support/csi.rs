//! The real CSI server on a real socket, over fakes of what lies below: images that need no registry, mounts
//! that need no privilege.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use composefs_csi::csi::endpoint::Endpoint;
use composefs_csi::csi::identity::IdentityService;
use composefs_csi::csi::proto::identity_server::IdentityServer;
use composefs_csi::csi::proto::node_client::NodeClient;
use composefs_csi::csi::proto::node_server::NodeServer;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use composefs_csi::csi::proto::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use composefs_csi::csi::readiness::Readiness;
use composefs_csi::csi::server::{Services, serve};
use composefs_csi::image::store::{ImageRecord, NodeKey, Options, Store};
use composefs_csi::image::tree::Rules;
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::Mounter;
use composefs_csi::node::mount::fake::FakeMounter;
use composefs_csi::node::service::{NodeService, NodeSettings};
use composefs_csi::node::state_directory::StateDirectory;
use composefs_csi::node::volume::guard::Guards;
use composefs_csi::node::volume::levels::Levels;
use composefs_csi::node::volume::metrics::VolumeMetrics;
use composefs_csi::node::volume::record::Records;
use composefs_csi::node::volume::writable::WritableLimit;
use composefs_csi::node::volume::{Parts, Volumes};
use composefs_csi::oci::choice::Choice;
use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::platform::Platform;
use composefs_csi::pull::{Combination, ImageRequest, Images, PullError, Ready};
use composefs_csi::volume::layouts::Layouts;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The image that the fake registry has under `r.example/a:1`.
pub const IMAGE: &str = "r.example/a:1";

/// How tests open a store.
pub fn store_options() -> Options {
    Options::new(NodeKey::from_bytes(&[42; 32]))
}

/// Images that are there at once, or when they are let through.
#[derive(Debug)]
pub struct FakeImages {
    store: Store,
    known: Mutex<BTreeMap<String, ImageRecord>>,
    gate: Semaphore,
    /// How often an image was asked for.
    pub asked: AtomicUsize,
}

impl FakeImages {
    fn new(directory: &Path) -> Self {
        let store = Store::open(directory, store_options()).unwrap();
        Self { store, known: Mutex::default(), gate: Semaphore::new(1), asked: AtomicUsize::new(0) }
    }

    /// Lets a reference name image number `number`.
    pub fn tag(&self, reference: &str, number: u8) {
        self.known.lock().unwrap().insert(reference.to_owned(), image(number));
    }

    /// From now on nobody may have the image that the reference names.
    pub fn forbid(&self, reference: &str) {
        self.known.lock().unwrap().remove(reference);
    }

    /// Pulls take for ever until [`FakeImages::let_through`].
    pub fn hold(&self) {
        self.gate.try_acquire().unwrap().forget();
    }

    /// Pulls end.
    pub fn let_through(&self) {
        self.gate.add_permits(1);
    }
}

#[async_trait]
impl Images for FakeImages {
    async fn ensure(&self, request: &ImageRequest) -> Result<Ready, PullError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _turn = self.gate.acquire().await.unwrap();
        let reference = request.reference.to_string();
        let known = self.known.lock().unwrap().get(&reference).cloned();
        let record = known.ok_or(PullError::Absent(reference))?;
        // What a volume shows already stays, even if the tag has moved.
        let record = request.pinned.map_or(record, |pinned| image(pinned.as_bytes()[0]));
        let (image, hold) = (record.image, self.store.hold());
        Ok(Ready { record, image, hold, fetched: 0, admission: None })
    }

    async fn combine(&self, _: &ImageRequest, wanted: Combination) -> Result<Ready, PullError> {
        // As many as they are: a test has few.
        let number =
            wanted.members.iter().fold(100, |sum: u8, (member, _)| sum.wrapping_add(member.image.0[0]));
        let members = wanted.members.iter().map(|(member, _)| member.clone()).collect();
        let record = ImageRecord { manifest: wanted.key(), members, ..image(number) };
        Ok(Ready { image: record.image, record, hold: self.store.hold(), fetched: 0, admission: None })
    }

    fn used(&self, _: &Digest) {}
}

fn image(number: u8) -> ImageRecord {
    ImageRecord {
        manifest: Digest::from_bytes([number; 32]),
        choice: Choice::default(),
        image: verity(number),
        image_size: 4096,
        rules: Rules::Faithful,
        builder: ImageRecord::BUILDER,
        sealed: false,
        layers: Vec::new(),
        places: Vec::new(),
        platform: None,
        names: Vec::new(),
        inodes: 7,
        bytes: 1000,
        created: 0,
        powers: None,
        variants: Vec::new(),
        members: Vec::new(),
    }
}

/// The composefs image of image number `number`.
pub fn verity(number: u8) -> VerityDigest {
    VerityDigest([number; 32])
}

/// A node whose parts outlive its plugin: the plugin can be killed and started again.
pub struct Node {
    pub directory: tempfile::TempDir,
    pub mounter: Arc<FakeMounter>,
    pub images: Arc<FakeImages>,
    /// Used instead of `mounter` by the next plugin.
    pub slow: Option<Arc<dyn Mounter>>,
    pub boot: String,
    pub pull_wait: Duration,
}

/// A running plugin.
pub struct Plugin {
    pub channel: Channel,
    pub node: NodeClient<Channel>,
    pub shutdown: CancellationToken,
    pub server: tokio::task::JoinHandle<()>,
}

impl Node {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("kubelet/pods")).unwrap();
        let mounter = Arc::new(FakeMounter::new());
        let images = Arc::new(FakeImages::new(&directory.path().join("store")));
        for number in 1..=2 {
            mounter.add_image(verity(number), &["etc"]);
            images.tag(&format!("r.example/a:{number}"), number);
        }
        let pull_wait = Duration::from_secs(30);
        Self { directory, mounter, images, slow: None, boot: "boot-1".to_owned(), pull_wait }
    }

    pub fn target(&self, name: &str) -> PathBuf {
        self.directory.path().join("kubelet/pods").join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("csi.sock")
    }

    pub fn records(&self) -> PathBuf {
        self.directory.path().join("store/volumes")
    }

    /// Starts the plugin as the run mode does, without the self-test.
    pub async fn start(&self) -> Plugin {
        let mounter: Arc<dyn Mounter> = self.slow.clone().unwrap_or_else(|| self.mounter.clone());
        let shutdown = CancellationToken::new();
        // Another one for each, since a plugin that is killed in here does not let go of it at once.
        let state = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        let state = StateDirectory::claim(&state).unwrap();
        let volumes = Volumes::new(Parts {
            images: self.images.clone(),
            mounter,
            records: Records::open(self.records()).unwrap(),
            kubelet: self.directory.path().join("kubelet"),
            boot: self.boot.clone(),
            writable: WritableLimit { bytes: 64 << 20, disk_bytes: 64 << 20, lacking: Vec::new() },
            levels: Levels {
                here: Integrity::Fetch,
                least: Integrity::Fetch,
                no_read: Some("a test".to_owned()),
            },
            platform: Platform::host(),
            layouts: Layouts::default(),
            guards: Guards::default(),
            credential_providers: composefs_csi::node::credential_providers::CredentialProviders::default(),
            pod_events: composefs_csi::node::volume::pod_events::PodEvents::default(),
            pod_directories: composefs_csi::node::volume::PodDirectories::default(),
            pulls: composefs_csi::node::volume::VolumePulls::default(),
            followed: composefs_csi::node::volume::follow::Followed::new(None),
            state: Arc::new(state),
            shutdown: shutdown.clone(),
            housekeeping: Arc::default(),
            corrupt_images: composefs_csi::node::corruption::CorruptImages::default(),
            metrics: VolumeMetrics::default(),
        });
        volumes.recover().await.unwrap();
        let ready = Readiness::default();
        let settings = NodeSettings {
            node_id: "node-1".to_owned(),
            kubelet_dir: self.directory.path().join("kubelet"),
            pull_wait: self.pull_wait,
        };
        let service = NodeService::new(settings, ready.clone());
        service.serve_volumes(volumes);
        ready.set(true);
        let identity =
            IdentityService { name: "csi.composefs.dev".parse().unwrap(), controller: false, ready };
        let services = Services::default().with(IdentityServer::new(identity)).with(NodeServer::new(service));
        let endpoint: Endpoint = self.socket().to_str().unwrap().parse().unwrap();
        let listening = endpoint.listen().unwrap();
        let (token, drain) = (shutdown.clone(), Duration::from_secs(5));
        let server = tokio::spawn(async move { serve(listening, services, token, drain).await.unwrap() });
        let channel = connect(&self.socket()).await;
        Plugin { node: NodeClient::new(channel.clone()), channel, shutdown, server }
    }

    pub fn publish(&self, volume: &str, target: &str) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: volume.to_owned(),
            target_path: self.target(target).to_str().unwrap().to_owned(),
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            volume_context: context(&[("image", IMAGE)]),
            ..Default::default()
        }
    }

    pub fn unpublish(&self, volume: &str, target: &str) -> NodeUnpublishVolumeRequest {
        let target_path = self.target(target).to_str().unwrap().to_owned();
        NodeUnpublishVolumeRequest { volume_id: volume.to_owned(), target_path }
    }

    /// Nothing of any volume is left.
    pub fn assert_clean(&self) {
        assert!(self.mounter.targets().is_empty(), "{:?}", self.mounter.targets());
        assert!(self.mounter.bases().is_empty());
        let records: Vec<_> = std::fs::read_dir(self.records())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_string_lossy() != "boot")
            .collect();
        assert!(records.is_empty(), "{records:?}");
        let targets = std::fs::read_dir(self.directory.path().join("kubelet/pods")).unwrap();
        assert_eq!(targets.count(), 0);
    }
}

impl Plugin {
    /// Ends at once, as by SIGKILL: nothing is awaited, and the socket's file stays as long as tokio likes.
    pub async fn kill(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

/// A client's connection to a socket that is served.
pub async fn connect(socket: &Path) -> Channel {
    try_connect(socket).await.unwrap()
}

/// A client's connection to a socket, if somebody serves it.
pub async fn try_connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move {
            let stream = tokio::net::UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    tonic::transport::Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

pub fn capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub fn context(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
