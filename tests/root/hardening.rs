//! What images must not be able to do to a node or to each other, through the whole driver: caps, privileges,
//! devices and pipes, URLs, documents under a wrong type. Needs root.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tonic::{Code, Status};

use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout, layout_from_dirs};
use crate::support::registry::{Options, Registry};

struct Node {
    machine: Machine,
    plugin: Plugin,
}

impl Node {
    async fn start(arguments: &[&str]) -> Self {
        let layouts = format!("--layout-dir={}", std::env::temp_dir().display());
        let machine = Machine::new(&[&[layouts.as_str()], arguments].concat());
        let plugin = machine.start().await;
        Self { machine, plugin }
    }

    async fn publish(&self, pod: &str, image: &str) -> Result<PathBuf, Status> {
        let request = self.machine.publish(pod, image);
        self.plugin.node.clone().node_publish_volume(request).await?;
        Ok(self.machine.target(pod))
    }

    async fn unpublish(&self, pod: &str) {
        self.plugin.node.clone().node_unpublish_volume(self.machine.unpublish(pod)).await.unwrap();
    }

    /// Publishing fails with `code` and a message that has all of `words`.
    async fn refuses(&self, image: &str, code: Code, words: &[&str]) {
        let status = self.publish("pod", image).await.expect_err(image);
        assert_eq!(status.code(), code, "{image}: {}", status.message());
        for word in words {
            assert!(status.message().contains(word), "{image}: {:?} does not say {word:?}", status.message());
        }
        self.unpublish("pod").await;
        self.machine.assert_nothing_published();
    }
}

/// Runs a program as a user without rights.
pub fn as_nobody(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).uid(65534).gid(65534);
    command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// Lets everybody walk to `path`, from `top` down.
pub fn open_the_way(top: &Path, path: &Path) {
    for directory in path.ancestors().take_while(|directory| directory.starts_with(top)) {
        // What is mounted is read-only, and open by itself.
        if let Err(error) = fs::set_permissions(directory, Permissions::from_mode(0o755)) {
            assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{}", directory.display());
        }
    }
}

/// cap_dac_read_search+ep, version 2: reading any file.
const READ_ALL: [u8; 20] = [1, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A program that is root's by its mode, and one that may read everything by its file capability.
pub fn privileged(root: &Path) {
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/bin/id", root.join("id")).unwrap();
    fs::set_permissions(root.join("id"), Permissions::from_mode(0o6755)).unwrap();
    fs::copy("/bin/cat", root.join("cat")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("cat"), "security.capability", &READ_ALL, flags).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_setuid_nor_file_capabilities_give_rights() {
    let source = tempfile::tempdir().unwrap();
    privileged(source.path());
    let secret = source.path().join("secret");
    fs::write(&secret, b"for root only").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let secret = secret.to_str().unwrap();
    // Where it comes from, both work, or what follows would prove nothing.
    let id = as_nobody(&source.path().join("id"), &["-u"]);
    assert_eq!(String::from_utf8_lossy(&id.stdout).trim(), "0", "the test's own setuid does not work");
    assert!(as_nobody(&source.path().join("cat"), &[secret]).status.success(), "nor do its capabilities");

    let node = Node::start(&[]).await;
    let layout = layout_from_dirs(&[source.path()]);
    let target = node.publish("pod", &layout.reference("latest")).await.unwrap();
    open_the_way(node.machine.path(), &target);
    let id = as_nobody(&target.join("id"), &["-u"]);
    assert!(id.status.success(), "{id:?}");
    assert_eq!(String::from_utf8_lossy(&id.stdout).trim(), "65534", "setuid took effect");
    let cat = as_nobody(&target.join("cat"), &[secret]);
    assert!(!cat.status.success(), "a file capability took effect");
    assert!(String::from_utf8_lossy(&cat.stderr).contains("Permission denied"), "{cat:?}");
    assert!(as_nobody(&target.join("cat"), &["/proc/self/status"]).status.success(), "it runs at all");
    node.unpublish("pod").await;
}

fn special(root: &Path) {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let mode = Mode::from_raw_mode(0o666);
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    mknodat(CWD, root.join("zero"), FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    mknodat(CWD, root.join("disk"), FileType::BlockDevice, mode, makedev(7, 0)).unwrap();
    mknodat(CWD, root.join("pipe"), FileType::Fifo, mode, 0).unwrap();
    fs::write(root.join("file"), b"x").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_pipes_are_left_out() {
    let source = tempfile::tempdir().unwrap();
    special(source.path());
    let layout = layout_from_dirs(&[source.path()]);
    let node = Node::start(&[]).await;
    let target = node.publish("pod", &layout.reference("latest")).await.unwrap();
    let names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert!(node.machine.log().contains("device nodes and named pipes left out"), "it is told");
    node.unpublish("pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_devices_cannot_be_opened_and_kept_pipes_join_pods() {
    let source = tempfile::tempdir().unwrap();
    special(source.path());
    let layout = layout_from_dirs(&[source.path()]);
    let node = Node::start(&["--keep-special-files"]).await;
    let one = node.publish("one", &layout.reference("latest")).await.unwrap();
    let other = node.publish("other", &layout.reference("latest")).await.unwrap();
    for device in ["zero", "disk"] {
        let path = one.join(device);
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        assert!(kind.is_char_device() || kind.is_block_device());
        let error = OpenOptions::new().read(true).open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{device}: {error}");
    }
    // Why pipes are left out: read-only mounts of one image, and yet one pod's bytes reach the other.
    let open = |path: PathBuf| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    };
    let (mut sender, mut receiver) = (open(one.join("pipe")), open(other.join("pipe")));
    sender.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    receiver.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    drop((sender, receiver));
    node.unpublish("one").await;
    node.unpublish("other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_are_settings_and_errors_name_the_flag() {
    let source = tempfile::tempdir().unwrap();
    for number in 0..50 {
        fs::write(source.path().join(format!("file-{number}")), vec![number; 1000]).unwrap();
    }
    let layers: Vec<&Path> = vec![source.path(); 3];
    let layout = layout_from_dirs(&layers);
    let image = layout.reference("latest");
    for (flag, value, found) in [
        ("--max-layers", "2", "3 layers"),
        ("--max-entries", "20", "21 headers"),
        ("--max-inodes", "50", "51 inodes"),
        ("--max-layer-bytes", "40000", "bytes of a layer"),
        ("--max-image-bytes", "200000", "bytes of an image"),
        ("--max-path-bytes", "6", "bytes of a name"),
        ("--max-manifest-bytes", "100", "bytes of a manifest"),
        ("--max-config-bytes", "100", "bytes of a config"),
        ("--max-index-entries", "0", "1 entries of an index"),
        ("--max-metadata-bytes", "100", "bytes of names"),
    ] {
        eprintln!("{flag}");
        let node = Node::start(&[flag, value]).await;
        node.refuses(&image, Code::ResourceExhausted, &[found, &format!("limit is {value}"), flag]).await;
    }
    // 51 in the end, and 50 more while a layer replaces the files of the one below.
    let node = Node::start(&["--max-layers", "3", "--max-inodes", "101"]).await;
    node.publish("pod", &image).await.unwrap();
    node.unpublish("pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_urls_of_a_descriptor_are_never_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/layer", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let registry = Registry::start(Options::default());
    let node = Node::start(&["--insecure-registry", &registry.host()]).await;
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), b"x").unwrap();
    let tar = crate::support::images::tar_of(source.path());
    for media_type in ["application/vnd.oci.image.layer.v1.tar", FOREIGN] {
        let mut layout = Layout::new();
        let plain = layout.add_manifest(&Image::new(vec![tar.clone()]));
        let bytes = fs::read(layout.path().join("blobs/sha256").join(plain.digest.hex())).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let layer = layout.blob(media_type, &tar);
        manifest["layers"] = json!([{"mediaType": media_type, "digest": layer.digest, "size": layer.size,
                                     "urls": [url], "data": "AA=="}]);
        let manifest = layout.blob(&plain.media_type, manifest.to_string().as_bytes());
        layout.tag(&manifest, "urls");
        // With its blob the image is like any other, `urls` or not; without it is not there.
        node.publish("pod", &layout.reference("urls")).await.unwrap();
        node.unpublish("pod").await;
        node.machine.run(&["prune"]);
        fs::remove_file(layout.path().join("blobs/sha256").join(layer.digest.hex())).unwrap();
        node.refuses(&layout.reference("urls"), Code::NotFound, &[&layer.digest.to_string()]).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "somebody asked the URL");
    // The counter counts.
    let _ = std::net::TcpStream::connect(url.trim_start_matches("http://").trim_end_matches("/layer"));
    while asked.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
}

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_two_things_at_once_are_refused() {
    let node = Node::start(&[]).await;
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut layout = Layout::new();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), b"x").unwrap();
    let honest = layout.add_manifest(&Image::new(vec![crate::support::images::tar_of(source.path())]));
    let bytes = fs::read(layout.path().join("blobs/sha256").join(honest.digest.hex())).unwrap();

    // CVE-2021-41190: a manifest and an index in one.
    let mut both: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    both["manifests"] = json!([]);
    let both = layout.blob(MANIFEST, both.to_string().as_bytes());
    layout.tag(&both, "both");
    node.refuses(&layout.reference("both"), Code::DataLoss, &["both a manifest and an index"]).await;

    // The index says index, the document manifest.
    let mut lying = honest.clone();
    lying.media_type = INDEX.to_owned();
    layout.tag(&lying, "lying");
    node.refuses(&layout.reference("lying"), Code::DataLoss, &[INDEX, MANIFEST]).await;

    // Without a word of its own, only its shape speaks against what the index says.
    let mut mute: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    mute.as_object_mut().unwrap().remove("mediaType");
    let mute = layout.blob(INDEX, mute.to_string().as_bytes());
    layout.tag(&mute, "mute");
    node.refuses(&layout.reference("mute"), Code::DataLoss, &[INDEX]).await;

    // Indexes within indexes, to no end.
    let mut layout = Layout::new();
    let mut inner =
        json!(layout.add_manifest(&Image::new(vec![crate::support::images::tar_of(source.path())])));
    for depth in 0..6 {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner], "annotations": {"depth": depth.to_string()}});
        let index = layout.blob(INDEX, index.to_string().as_bytes());
        layout.tag(&index, &format!("depth-{depth}"));
        inner = json!(index);
    }
    node.publish("pod", &layout.reference("depth-2")).await.unwrap();
    node.unpublish("pod").await;
    node.refuses(&layout.reference("depth-5"), Code::InvalidArgument, &["nested too deeply"]).await;

    // A filesystem that somebody else has made.
    let mut made: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    made["layers"][0]["mediaType"] = "application/vnd.erofs.layer.v1".into();
    let mut layout = Layout::new();
    let made = layout.blob(MANIFEST, made.to_string().as_bytes());
    layout.tag(&made, "erofs");
    node.refuses(&layout.reference("erofs"), Code::FailedPrecondition, &["never mounted"]).await;
}
