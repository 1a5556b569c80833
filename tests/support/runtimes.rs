//! Container runtimes, and containers with a volume in them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::pod_users::LENGTH;
use super::tools::debian_set;

/// A runtime that tests run for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Debian bookworm's runc 1.1, which has no idmapped mounts.
    OldRunc,
    /// Debian sid's runc, 1.3 or later.
    Runc,
    /// Debian sid's crun, 1.20 or later.
    Crun,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OldRunc, Self::Runc, Self::Crun];

    /// The command line that stands before a runtime's own options.
    fn command(self) -> Command {
        let set = debian_set(if self == Self::OldRunc { "node" } else { "runtimes" }).join("root");
        let program = set.join(if self == Self::Crun { "usr/bin/crun" } else { "usr/sbin/runc" });
        if self == Self::OldRunc {
            return Command::new(program);
        }
        // They start themselves anew by /proc/self/exe, so that no wrapper can name another loader. In a mount namespace of
        // their own the libraries of their suite lie over this machine's. crun wants no mixture of cgroup versions.
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let script = format!(
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
             mount -t overlay -o lowerdir={}:/{libraries} overlay /{libraries} && exec \"$@\"",
            set.join(&libraries).display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-c", &script, "sh"]).arg(program);
        if self == Self::Crun {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }
}

/// A container without a file of its own but links into this machine's /usr.
#[derive(Debug)]
pub struct Container {
    runtime: Runtime,
    /// The first id of its user namespace, if it has one, as a pod with `hostUsers: false`.
    first: Option<u32>,
    bundle: tempfile::TempDir,
}

impl Container {
    /// One that has not run yet.
    pub fn new(runtime: Runtime, first: Option<u32>) -> Self {
        let bundle = tempfile::tempdir().expect("a directory");
        fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let root = bundle.path().join("rootfs");
        let mut own: Vec<PathBuf> = ["", "usr", "proc", "dev", "volume"].map(|name| root.join(name)).into();
        own.iter().for_each(|directory| fs::create_dir_all(directory).expect("mkdir"));
        for link in ["bin", "lib", "lib64"] {
            symlink(Path::new("usr").join(link), root.join(link)).expect("a link");
            own.push(root.join(link));
        }
        for path in own.iter().filter(|_| first.is_some()) {
            lchown(path, first, first).expect("chown");
        }
        Self { runtime, first, bundle }
    }

    /// Runs a shell script, as nobody or as the root of its user namespace, with `volume` bound to /volume by these options
    /// as kubelet and containerd ask for it. Returns whether it began and ended well, and what it and the runtime said.
    pub fn run(&self, volume: &Path, options: &[&str], script: &str) -> (bool, String) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let config = self.config(volume, options, script);
        fs::write(self.bundle.path().join("config.json"), config.to_string()).expect("cannot write");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("composefs-csi-{}-{number}", std::process::id());
        let mut command = self.runtime.command();
        command.arg("--root").arg(self.bundle.path().join("state"));
        command.args(["run", "--no-pivot", "--bundle"]).arg(self.bundle.path()).arg(name);
        let output = command.stdin(std::process::Stdio::null()).output().expect("the runtime");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn config(&self, volume: &Path, options: &[&str], script: &str) -> Value {
        let bind = |from: &Path, to: &str, options: &[&str]| {
            // kubelet's `mountPropagation`; a runtime takes one after the other.
            let own: &[&str] = if options.contains(&"rslave") { &["rbind"] } else { &["rbind", "rprivate"] };
            let options = [own, options].concat();
            json!({"type": "bind", "source": from, "destination": to, "options": options})
        };
        let kinds = ["pid", "mount", "ipc", "uts"].iter().chain(self.first.map(|_| &"user"));
        let mut linux = json!({"namespaces": kinds.map(|kind| json!({"type": kind})).collect::<Vec<_>>()});
        let mut volume = bind(volume, "/volume", options);
        if options.contains(&"rslave") {
            // As containerd and CRI-O write it then; crun makes everything private otherwise.
            linux["rootfsPropagation"] = json!("rslave");
        }
        let mut user = 65_534;
        if let Some(first) = self.first {
            let mapping = json!([{"containerID": 0, "hostID": first, "size": LENGTH}]);
            for place in [&mut linux, &mut volume] {
                place["uidMappings"] = mapping.clone();
                place["gidMappings"] = mapping.clone();
            }
            user = 0;
        }
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": user}, "cwd": "/", "env": ["PATH=/usr/bin"],
                "args": ["/usr/bin/sh", "-c", script], "noNewPrivileges": false,
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"type": "proc", "source": "proc", "destination": "/proc"},
                {"type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["nosuid", "mode=755"]},
                bind(Path::new("/usr"), "/usr", &["ro"]),
                volume,
            ],
            "linux": linux,
        })
    }

    /// The flags of the volume's mount inside, without `relatime`.
    pub fn flags(&self, volume: &Path, options: &[&str]) -> Vec<String> {
        let (_, line) = self.run(volume, options, "grep ' /volume ' /proc/self/mountinfo");
        let flags = line.split(' ').nth(5).unwrap_or_else(|| panic!("{line}"));
        flags.split(',').filter(|flag| *flag != "relatime").map(str::to_owned).collect()
    }
}
