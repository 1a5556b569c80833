//! The operator's commands in the plugin's container: `kubectl exec` gives them the container's environment and nothing
//! else, so that must be all they need to know. Here the rendered environment, ConfigMaps and the real program.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::archive::{archive, noise};
use crate::support::chart::{items, only, render_command, text};
use crate::support::images::{Image, Layout};
use crate::support::objects::containers;
use crate::support::registry::{Options, Registry};

/// The node plugin's container as far as a command sees it, in a directory.
struct Container {
    root: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// Where the chart puts files.
const FILES: &str = "/etc/composefs-csi";

impl Container {
    /// Renders the chart with these values, and puts its ConfigMaps where the environment says.
    fn of(values: &Value) -> Self {
        // Not below /tmp, which may be a tmpfs: EROFS mounts no file from there.
        let root = tempfile::Builder::new().prefix("composefs-csi-").tempdir_in("/var/tmp").unwrap();
        let mut values = values.clone();
        values["stateDir"] = root.path().join("state").to_str().unwrap().into();
        let file = root.path().join("values.json");
        std::fs::write(&file, values.to_string()).unwrap();
        let output = render_command("1.36.0", &["--values", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let objects = crate::support::chart::documents(&String::from_utf8(output.stdout).unwrap());
        let workload = only(&objects, "DaemonSet", "-node");
        let driver = containers(workload).find(|container| container["name"] == "driver").unwrap();
        for volume in items(workload, "/spec/template/spec/volumes") {
            let name = text(volume, "/configMap/name");
            if !name.is_empty() {
                let data = only(&objects, "ConfigMap", name)["data"].as_object().unwrap();
                for (file, content) in data {
                    let directory = root.path().join("files").join(text(volume, "/name"));
                    std::fs::create_dir_all(&directory).unwrap();
                    std::fs::write(directory.join(file), content.as_str().unwrap()).unwrap();
                }
            }
        }
        let files = root.path().join("files").to_str().unwrap().to_owned();
        let env = items(driver, "/env")
            .iter()
            .map(|variable| {
                (text(variable, "/name").to_owned(), text(variable, "/value").replace(FILES, &files))
            })
            .collect();
        Self { root, env }
    }

    /// A file of a Secret, which is not the chart's.
    fn secret(&self, file: &str, content: &[u8]) {
        let path = self.root.path().join("files").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// `kubectl exec … -- composefs-csi ARGUMENTS`.
    fn exec(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_composefs-csi"));
        command.env_clear().env("PATH", "/usr/bin").envs(self.env.iter().cloned());
        command.args(arguments).output().expect("the program")
    }

    /// The same, which must succeed; what it printed.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.exec(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} with {:?}: {complaint}", self.env);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Every documented command, on a node with private registries by TLS and by plain http, and a policy for each namespace.
#[test]
fn commands_know_the_settings_of_the_plugin() {
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &noise("a", 5000))])]));
    let user = Some(("user", "secret"));
    let (plain, tls) =
        (Registry::start(Options { tls: false, user: None }), Registry::start(Options { tls: true, user }));
    let images = [&plain, &tls].map(|registry| registry.push(&layout.reference("latest"), "team/app:1", &[]));
    let accept = serde_json::json!([{"type": "insecureAcceptAnything"}]);
    let reject = serde_json::json!([{"type": "reject"}]);
    let container = Container::of(&serde_json::json!({
        "registries": {
            "insecure": [plain.host(), "other.example.com:80"],
            "certificateAuthorities": {"own.pem": std::fs::read_to_string(tls.ca_file()).unwrap()},
            "authSecret": "credentials",
        },
        "policy": {
            "json": {"default": reject, "transports": {"docker": {plain.host(): accept, tls.host(): accept}}},
            "namespaces": {"closed": {"default": reject}},
        },
        "imageCredentials": {"allow": ["registry.example.com/public/*", "registry.example.com/a/b"]},
        "node": {"gc": {"highPercent": 2, "lowPercent": 1}},
        "extraEnv": [{"name": "COMPOSEFS_CSI_MAX_LAYERS", "value": "3"}],
    }));
    container.secret("auth/.dockerconfigjson", &tls.docker_config("secret"));

    for image in &images {
        let explained = container.says(&["policy", "check", image]);
        assert!(explained.contains("policy.json") && explained.ends_with("admitted\n"), "{explained}");
        let refused = container.exec(&["policy", "check", "--namespace", "closed", image]);
        let explained = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert!(!refused.status.success() && explained.contains("closed.json"), "{explained}");
        container.says(&["pull", image]);
        assert!(container.says(&["ls"]).contains("/team/app:1"));
        assert!(container.says(&["inspect", image]).contains("sha256:"));
        container.says(&["inspect", "--files", image]);
        container.says(&["digest", image]);
        container.says(&["verify", image]);
        container.says(&["pin", image]);
        container.says(&["unpin", image]);
    }
    container.says(&["verify"]);
    container.says(&["probe"]);

    let listed: Value = serde_json::from_str(&container.says(&["--output", "json", "ls"])).unwrap();
    assert!(Path::new(container.root.path()).join("state/store").is_dir(), "the plugin's own store");
    assert!(!items(&listed, "/images").is_empty(), "{listed}");
    // The marks are the plugin's: any disk that tests run on is fuller than 2 percent.
    let pruned: Value =
        serde_json::from_str(&container.says(&["--output", "json", "prune", "--watermark", "--dry-run"]))
            .unwrap();
    assert!(!items(&pruned, "/images").is_empty(), "{pruned}");
    let deep = Layout::of(&Image::new((0..4).map(|n| archive(&[("file", &[n])])).collect()));
    let deep = plain.push(&deep.reference("latest"), "team/deep:1", &[]);
    let refused = container.exec(&["pull", &deep]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("max-layers"), "a limit of extraEnv: {said}");
}

/// Everything that the chart can set is understood: a variable that the program cannot read ends every command.
#[test]
fn every_setting_is_understood() {
    let container = Container::of(&serde_json::json!({
        "selinux": {"context": "none"},
        "policy": {"withoutPolicy": "accept", "verifierDir": "/opt/verifiers", "verifierTimeoutSeconds": 3},
        "imageCredentials": {"policy": "AlwaysVerify", "ttlSeconds": 0},
    }));
    let names: Vec<&str> = container.env.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"COMPOSEFS_CSI_VERIFIER_TIMEOUT"), "{names:?}");
    container.says(&["ls"]);
}

/// The ends of what the schema lets through, in the program.
#[test]
fn the_program_takes_the_ranges_that_the_schema_takes() {
    for ranges in [
        serde_json::json!({"sizeMiB": 1, "atOnce": 1, "connections": 0, "keepSeconds": 0}),
        serde_json::json!({"sizeMiB": 1024, "atOnce": 64, "connections": 1024, "keepSeconds": 315_360_000}),
    ] {
        let container = Container::of(&serde_json::json!({"node": {"ranges": ranges}}));
        container.says(&["ls"]);
        container.says(&["prune"]);
    }
}
