//! What a container can do with a volume whose flags its runtime has dropped: nothing that the flags forbade. And what
//! a sealed image may hold. Through the whole driver, on real mounts. Needs root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use composefs_csi::oci::digest::Digest;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::admission::{Registry, key, signed_by, write_policy};
use super::hardening::{as_nobody, open_the_way, privileged};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout, layout_from_dirs, tar_of};

const FAITHFUL: &str = "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12";

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

    async fn publish(&self, pod: &str, image: &str, noexec: bool) -> Result<PathBuf, Status> {
        let mut request = self.machine.publish(pod, image);
        request.volume_context.insert("noexec".to_owned(), noexec.to_string());
        request.volume_context.insert("pullPolicy".to_owned(), "Always".to_owned());
        self.plugin.node.clone().node_publish_volume(request).await?;
        let target = self.machine.target(pod);
        open_the_way(self.machine.path(), &target);
        Ok(target)
    }

    async fn unpublish(&self, pod: &str) {
        self.plugin.node.clone().node_unpublish_volume(self.machine.unpublish(pod)).await.unwrap();
    }
}

/// Runs `program` of the volume as a user without rights, in a mount namespace where the volume is mounted as runc
/// mounts it into a container that has `readOnly: true`: bound, and then mounted again with `ro` as its only flag.
fn in_container(volume: &Path, program: &str, arguments: &[&str]) -> Output {
    let script = r#"set -e
        mount --make-rprivate /
        mount -t tmpfs -o mode=755 none /mnt
        mkdir /mnt/volume
        mount --bind "$1" /mnt/volume
        mount -o remount,bind,ro,suid,dev,exec /mnt/volume
        program=/mnt/volume/$2; shift 2
        exec setpriv --reuid 65534 --regid 65534 --clear-groups "$program" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(volume).arg(program).args(arguments);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Mode and file capability of each file.
fn seen(volume: &Path) -> Vec<(u32, bool)> {
    let one = |name: &str| {
        let path = volume.join(name);
        let capability = rustix::fs::getxattr(&path, "security.capability", &mut [0u8; 64][..]);
        (fs::metadata(&path).unwrap().mode() & 0o7777, capability.is_ok())
    };
    ["id", "cat"].map(one).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_a_volume_give_no_rights_where_the_flags_of_its_mount_are_gone() {
    let source = tempfile::tempdir().unwrap();
    privileged(source.path());
    let secret = source.path().join("secret");
    fs::write(&secret, b"for root only").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let secret = secret.to_str().unwrap();
    let layout = layout_from_dirs(&[source.path()]);
    let image = layout.reference("latest");

    // With them kept, the container has them: the node's own mount alone is `nosuid`.
    let node = Node::start(&["--keep-privileges"]).await;
    let volume = node.publish("pod", &image, false).await.unwrap();
    assert_eq!(seen(&volume), [(0o6755, false), (0o755, true)]);
    assert_eq!(said(&as_nobody(&volume.join("id"), &["-u"])), "65534");
    assert_eq!(said(&in_container(&volume, "id", &["-u"])), "0", "or what follows would prove nothing");
    assert!(in_container(&volume, "cat", &[secret]).status.success(), "nor this");
    // The x bits go even so.
    let noexec = node.publish("data", &image, true).await.unwrap();
    assert_eq!(seen(&noexec), [(0o644, false), (0o644, false)]);
    node.unpublish("pod").await;
    node.unpublish("data").await;

    let node = Node::start(&[]).await;
    let volume = node.publish("pod", &image, false).await.unwrap();
    assert_eq!(seen(&volume), [(0o755, false), (0o755, false)]);
    assert_eq!(said(&in_container(&volume, "id", &["-u"])), "65534", "setuid took effect");
    let cat = in_container(&volume, "cat", &[secret]);
    assert!(!cat.status.success(), "a file capability took effect");
    assert!(String::from_utf8_lossy(&cat.stderr).contains("Permission denied"), "{cat:?}");
    assert!(in_container(&volume, "cat", &["/proc/self/status"]).status.success(), "it runs at all");
    assert!(node.machine.log().contains("set-user-ID and set-group-ID bits and file capabilities left out"));

    // Beside it, the same image without programs; the rest is the same files.
    let noexec = node.publish("data", &image, true).await.unwrap();
    assert_eq!(seen(&noexec), [(0o644, false), (0o644, false)]);
    let refused = in_container(&noexec, "id", &["-u"]);
    assert!(!refused.status.success() && said(&refused).is_empty(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");
    assert_eq!(fs::read(noexec.join("id")).unwrap(), fs::read(volume.join("id")).unwrap());
    assert_eq!(fs::metadata(&noexec).unwrap().mode() & 0o777, 0o755, "who may enter a directory stays");
    assert_eq!(node.machine.run(&["ls"])["images"].as_array().unwrap().len(), 1);

    // As long as the variant alone is mounted, the image stays.
    node.unpublish("pod").await;
    assert_eq!(node.machine.run(&["prune"])["images"], json!([]));
    assert!(fs::read(noexec.join("id")).unwrap().starts_with(b"\x7fELF"));
    node.unpublish("data").await;
    assert_eq!(node.machine.run(&["prune"])["images"].as_array().unwrap().len(), 1);
    node.machine.assert_nothing_published();
}

/// A sealed image with a set-user-ID program, a file capability and a named pipe.
fn sealed_with_all(source: &Path) -> Image {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    privileged(source);
    mknodat(CWD, source.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    let mut image = Image::new(vec![tar_of(source)]);
    let desk = Machine::new(&[]);
    let plain = Layout::of(&image);
    let digest = desk.run(&["digest", "--rules", "verbatim", &plain.reference("latest")]);
    image.annotations.insert(FAITHFUL.to_owned(), digest["composefs"].as_str().unwrap().to_owned());
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_image_is_shown_as_it_was_written_once_its_signature_is_verified() {
    let source = tempfile::tempdir().unwrap();
    let (registry, index, _): (_, Digest, _) = Registry::with(sealed_with_all(source.path())).await;
    let (directory, mine, image) = (tempfile::tempdir().unwrap(), key(), registry.image());
    registry.sign(&index, &mine);
    let insecure = format!("--insecure-registry={}", registry.host());
    let accept = json!({"type": "insecureAcceptAnything"});
    let start = |requirement: Value| {
        let policy = write_policy(directory.path(), &requirement);
        let policy = format!("--policy={}", policy.display());
        let insecure = insecure.clone();
        async move { Node::start(&[&insecure, &policy]).await }
    };

    // Its own word, although there is a signature: nobody has verified it.
    let node = start(accept).await;
    let refused = node.publish("pod", &image, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    for word in ["pipe", "sign it", "--keep-special-files", "--rules unprivileged"] {
        assert!(refused.message().contains(word), "{refused}");
    }
    node.unpublish("pod").await;
    node.machine.assert_nothing_published();
    drop(node);

    let node = start(signed_by(directory.path(), &mine)).await;
    let volume = node.publish("pod", &image, false).await.unwrap();
    assert_eq!(seen(&volume), [(0o6755, false), (0o755, true)], "as it was written");
    assert!(fs::symlink_metadata(volume.join("pipe")).is_ok());
    let noexec = node.publish("data", &image, true).await.unwrap_err();
    assert_eq!(noexec.code(), Code::FailedPrecondition, "{noexec}");
    assert!(noexec.message().contains("--rules noexec"), "{noexec}");
    node.unpublish("pod").await;
    node.unpublish("data").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_sealed_without_what_is_refused_needs_nobody_s_word() {
    let source = tempfile::tempdir().unwrap();
    privileged(source.path());
    let layout = layout_from_dirs(&[source.path()]);
    let image = layout.reference("latest");
    let desk = Machine::new(&[]);
    let node = Node::start(&[]).await;
    let sealed = desk.command(&["seal", "--rules", "faithful", &image]).output().unwrap();
    let warned = String::from_utf8_lossy(&sealed.stderr);
    assert!(
        sealed.status.success() && warned.contains("/cat") && warned.contains("--rules unprivileged"),
        "{warned}"
    );
    let refused = node.publish("one", &image, false).await.unwrap_err();
    assert!(refused.message().contains("keepPrivileges") && refused.message().contains("cat"), "{refused}");
    node.unpublish("one").await;

    desk.run(&["seal", "--force", "--rules", "unprivileged", &image]);
    let volume = node.publish("two", &image, false).await.unwrap();
    assert_eq!(seen(&volume), [(0o755, false), (0o755, false)]);
    let refused = node.publish("three", &image, true).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    node.unpublish("two").await;
    node.unpublish("three").await;

    desk.run(&["seal", "--force", "--rules", "noexec", &image]);
    let volume = node.publish("four", &image, true).await.unwrap();
    assert_eq!(seen(&volume), [(0o644, false), (0o644, false)]);
    node.unpublish("four").await;
}
