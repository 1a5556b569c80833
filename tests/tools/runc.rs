//! Volumes in containers of Debian's runc: what its mounts keep of a volume's flags, as docs/SECURITY.md says, and that
//! nothing depends on it. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::driver::Machine;
use crate::support::images::layout_from_dirs;
use crate::support::tools::debian_set;

/// A container without a file of its own but links into this machine's /usr.
struct Container {
    runc: PathBuf,
    bundle: tempfile::TempDir,
}

impl Container {
    fn new() -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let root = bundle.path().join("rootfs");
        for directory in ["usr", "proc", "volume"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for link in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(Path::new("usr").join(link), root.join(link)).unwrap();
        }
        Self { runc: debian_set("node").join("root/usr/sbin/runc"), bundle }
    }

    /// Runs a shell script as nobody, with `volume` bound to /volume by these options; returns what it printed.
    fn run(&self, volume: &Path, options: &[&str], script: &str) -> String {
        let bind = |from: &Path, to: &str, options: &[&str]| {
            let options = [&["rbind", "rprivate"], options].concat();
            json!({"type": "bind", "source": from, "destination": to, "options": options})
        };
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 65534, "gid": 65534}, "cwd": "/", "env": ["PATH=/usr/bin"],
                "args": ["/usr/bin/sh", "-c", script], "noNewPrivileges": false,
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"type": "proc", "source": "proc", "destination": "/proc"},
                bind(Path::new("/usr"), "/usr", &["ro"]),
                bind(volume, "/volume", options),
            ],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
        });
        fs::write(self.bundle.path().join("config.json"), config.to_string()).unwrap();
        let name = format!("composefs-csi-{}", std::process::id());
        let mut command = Command::new(&self.runc);
        command.arg("--root").arg(self.bundle.path().join("state"));
        command.args(["run", "--no-pivot", "--bundle"]).arg(self.bundle.path()).arg(name);
        let output = command.output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    fn flags(&self, volume: &Path, options: &[&str]) -> Vec<String> {
        let line = self.run(volume, options, "grep ' /volume ' /proc/self/mountinfo");
        let flags = line.split(' ').nth(5).unwrap_or_else(|| panic!("{line}"));
        flags.split(',').filter(|flag| *flag != "relatime").map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_gives_no_rights_whatever_its_container_s_mount_keeps() {
    let source = tempfile::tempdir().unwrap();
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/bin/id", source.path().join("id")).unwrap();
    fs::set_permissions(source.path().join("id"), fs::Permissions::from_mode(0o4755)).unwrap();
    let layout = layout_from_dirs(&[source.path()]);
    let layouts = format!("--layout-dir={}", layout.path().display());
    let container = Container::new();
    for (arguments, noexec, user) in [
        // As it was, and as it is where the operator keeps them.
        (&["--keep-privileges"][..], false, "0"),
        (&[], false, "65534"),
        (&[], true, "Permission denied"),
    ] {
        let machine = Machine::new(&[&[layouts.as_str()], arguments].concat());
        let plugin = machine.start().await;
        let mut request = machine.publish("pod", &layout.reference("latest"));
        request.volume_context.insert("noexec".to_owned(), noexec.to_string());
        plugin.node.clone().node_publish_volume(request).await.unwrap();
        let volume = machine.target("pod");
        let all: &[&str] =
            if noexec { &["ro", "nosuid", "nodev", "noexec"] } else { &["ro", "nosuid", "nodev"] };
        // What kubelet's `readOnly: true` becomes.
        assert_eq!(container.flags(&volume, &["ro"]), ["ro"], "the claim of docs/SECURITY.md");
        let said = container.run(&volume, &["ro"], "/volume/id -u");
        assert!(said.contains(user), "{arguments:?}, noexec {noexec}: {said}");
        assert!(user != "65534" || said.trim() == user, "{said}");
        // Without it, and with `recursiveReadOnly`.
        for options in [&[][..], &["rro"]] {
            assert_eq!(container.flags(&volume, options), all, "{options:?}");
        }
        plugin.node.clone().node_unpublish_volume(machine.unpublish("pod")).await.unwrap();
    }
}
