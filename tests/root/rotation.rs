//! Settings of registries that change under a running plugin: passwords, certificate authorities, the list of those
//! without TLS. The files are swapped as kubelet swaps those of a Secret or ConfigMap.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tonic::Code;

use crate::support::archive::archive;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::registry::{Options, Registry};

/// A volume of files that is updated as kubelet does it: a new directory, and a link that is swapped.
struct Volume(PathBuf, u32);

impl Volume {
    fn new(machine: &Machine, name: &str, content: &[u8]) -> (Self, String) {
        let directory = machine.path().join(name);
        fs::create_dir(&directory).unwrap();
        symlink("..data/file", directory.join("file")).unwrap();
        let flag = directory.join("file").display().to_string();
        let mut volume = Self(directory, 0);
        volume.swap(content);
        (volume, flag)
    }

    fn swap(&mut self, content: &[u8]) {
        self.1 += 1;
        let version = format!("..version-{}", self.1);
        fs::create_dir(self.0.join(&version)).unwrap();
        fs::write(self.0.join(&version).join("file"), content).unwrap();
        symlink(&version, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        if self.1 > 1 {
            fs::remove_dir_all(self.0.join(format!("..version-{}", self.1 - 1))).unwrap();
        }
    }
}

/// Images of different names, none of which the node has.
fn push(registry: &Registry, names: &[&str]) {
    for name in names {
        let layout = Layout::of(&Image::new(vec![archive(&[("name", name.as_bytes())])]));
        registry.push(&layout.reference("latest"), &format!("{name}:1"), &[]);
    }
}

async fn publish(plugin: &Plugin, machine: &Machine, image: &str) -> Result<(), tonic::Status> {
    let pod = image.rsplit('/').next().unwrap().replace(':', "-");
    plugin.node.clone().node_publish_volume(machine.publish(&pod, image)).await.map(drop)
}

/// As kubelet tries again. The plugin looks at files once a second, so the first try may come too soon.
async fn publish_soon(plugin: &Plugin, machine: &Machine, image: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while let Err(status) = publish(plugin, machine, image).await {
        assert!(Instant::now() < deadline, "{status}\n{}", machine.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_needs_no_restart() {
    let registry = Registry::start(Options { user: Some(("node", "old")), ..Options::default() });
    push(&registry, &["before", "between", "after", "last"]);
    let mut machine = Machine::new(&["--insecure-registry", &registry.host()]);
    let (mut secret, file) = Volume::new(&machine, "secret", &registry.docker_config("old"));
    machine.also(&flag("auth-file", Path::new(&file)));
    let plugin = machine.start().await;
    let image = |name: &str| format!("{}/{name}:1", registry.host());
    publish(&plugin, &machine, &image("before")).await.unwrap();

    // Half of the new file: the old password stays in use, and somebody is told.
    let new = registry.docker_config("new");
    secret.swap(&new[..new.len() / 2]);
    std::thread::sleep(Duration::from_millis(1100));
    publish(&plugin, &machine, &image("between")).await.unwrap();
    assert!(machine.log().contains("the node's credentials from before stay in use"), "{}", machine.log());

    registry.set_user(("node", "new"));
    let refused = publish(&plugin, &machine, &image("after")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    secret.swap(&new);
    publish_soon(&plugin, &machine, &image("after")).await;
    assert_eq!(machine.log().matches("the node's credentials have changed").count(), 1);

    // In place, without a new file, as an editor does it.
    registry.set_user(("node", "newer"));
    fs::write(fs::canonicalize(&file).unwrap(), registry.docker_config("newer")).unwrap();
    publish_soon(&plugin, &machine, &image("last")).await;
    let log = machine.log();
    assert!(!log.contains("bmV3") && !log.contains(r#""new""#), "a secret is in the log:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_authority_needs_no_restart() {
    let (registry, other) = {
        let options = Options { tls: true, ..Options::default() };
        (Registry::start(options), Registry::start(options))
    };
    push(&registry, &["a", "b"]);
    let right = fs::read(registry.ca_file()).unwrap();
    let mut machine = Machine::new(&[]);
    let (mut volume, file) = Volume::new(&machine, "ca", &fs::read(other.ca_file()).unwrap());
    machine.also(&flag("registry-ca", Path::new(&file)));
    let plugin = machine.start().await;
    let image = |name: &str| format!("{}/{name}:1", registry.host());
    let refused = publish(&plugin, &machine, &image("a")).await.unwrap_err();
    assert!(refused.message().contains("certificate"), "{refused}");
    volume.swap(&right);
    publish_soon(&plugin, &machine, &image("a")).await;
    volume.swap(b"");
    std::thread::sleep(Duration::from_millis(1100));
    publish(&plugin, &machine, &image("b")).await.unwrap();
    assert!(machine.log().contains("settings of registries from before stay in use"), "{}", machine.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_tls_is_added_without_a_restart() {
    let registry = Registry::start(Options::default());
    push(&registry, &["a"]);
    let mut machine = Machine::new(&[]);
    let (mut volume, file) = Volume::new(&machine, "list", b"# none yet\n");
    machine.also(&flag("insecure-registries-file", Path::new(&file)));
    let plugin = machine.start().await;
    let image = format!("{}/a:1", registry.host());
    let refused = publish(&plugin, &machine, &image).await.unwrap_err();
    assert!(refused.message().contains("does not speak TLS"), "{refused}");
    volume.swap(format!("other.example\n{}\n", registry.host()).as_bytes());
    publish_soon(&plugin, &machine, &image).await;
}
