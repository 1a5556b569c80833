//! Every switch, on and off: the objects are sound, and the program takes the arguments that they give it.

use std::process::Command;

use serde_json::Value;

use super::schema::values;
use crate::support::chart::{VERSIONS, items, only, render, text, title};
use crate::support::objects::{check, containers, unknown_fields};

/// The switches of values.yaml as `path.to.switch`.
fn switches(value: &Value, path: &str, found: &mut Vec<(String, bool)>) {
    match value {
        Value::Bool(default) => found.push((path.to_owned(), *default)),
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                switches(value, &path, found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_switch_renders_soundly_on_and_off() {
    let mut found = Vec::new();
    switches(&values(), "", &mut found);
    assert!(found.len() >= 6, "{found:?}");
    let mut all = Vec::new();
    for (path, default) in &found {
        let flipped = format!("{path}={}", !default);
        // An account that the chart does not make has a name.
        let name = path.strip_suffix("create").filter(|path| path.starts_with("serviceAccount"));
        let name = name.map(|path| format!("{path}name=theirs"));
        let sets: Vec<&str> = [Some(flipped.as_str()), name.as_deref()].into_iter().flatten().collect();
        for kubernetes in VERSIONS {
            check(&render(kubernetes, &sets), &format!("{kubernetes} {sets:?}"));
        }
        // One of the two monitors.
        if !default && path != "metrics.serviceMonitor.enabled" {
            all.push(flipped);
        }
    }
    // And all together, on the release that knows all.
    let all: Vec<&str> = all.iter().map(String::as_str).chain(LISTS).collect();
    let objects = render(VERSIONS[1], &all);
    check(&objects, "everything on");
    for object in &objects {
        assert_eq!(unknown_fields(object), Vec::<String>::new(), "{}", title(object));
    }
}

/// Lists and texts that switch something on.
pub const LISTS: [&str; 40] = [
    "commonLabels.team=storage",
    "global.imageRegistry=mirror.example.com",
    "storageClasses[0].name=models",
    "storageClasses[0].parameters.image=registry.example.com/models:1",
    "sidecars.externalProvisioner.extraArgs={--worker-threads=9}",
    "image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "imagePullSecrets[0].name=pull",
    "registries.insecure={localhost:5000,mirror:80}",
    "registries.certificateAuthorities.own\\.pem=-----BEGIN CERTIFICATE-----",
    "registries.authSecret=credentials",
    "registries.credentialHelperDir=/opt/credential-helpers",
    "registries.mirrors.hostsDirs={/etc/containerd/certs.d}",
    "registries.mirrors.registriesConf=/etc/containers/registries.conf",
    "registries.mirrors.proof=mirror",
    "tokenRequests[0].audience=registry",
    "node.layoutDirs={/srv/images,/srv/more}",
    "node.objectSources={/sysroot/composefs,/srv/objects}",
    "node.writableMaxMiB=64",
    "node.writableMaxDiskMiB=64",
    "sidecars.seLinuxType=spc_t",
    "networkPolicy.egress[0].ports[0].port=443",
    "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus",
    "policy.json.default[0].type=reject",
    "policy.namespaces.team.default[0].type=insecureAcceptAnything",
    "policy.keys.team\\.pub=key",
    "policy.verifierDir=/opt/verifiers",
    "pullSecrets.namespaces={shop,office}",
    "imageCredentials.allow={registry.example.com/public/*}",
    "credentialProviders.configFile=/etc/kubernetes/credential-providers.yaml",
    "credentialProviders.binDir=/opt/credential-providers",
    "node.keyDir=/var/lib/composefs-csi-key",
    "tracing.otlpEndpoint=http://collector:4318",
    "controller.secrets.namespaces={a,b}",
    "controller.replicas=2",
    "extraEnv[0].name=HTTPS_PROXY",
    "extraEnv[0].value=http://proxy:3128",
    "node.extraVolumes[0].name=azure",
    "node.extraVolumes[0].hostPath.path=/etc/kubernetes/azure",
    "node.extraVolumeMounts[0].name=azure",
    "node.extraVolumeMounts[0].mountPath=/etc/kubernetes/azure",
];

/// An unknown flag, or a value that the program refuses, would be seen in a cluster only.
#[test]
fn the_program_takes_the_arguments_that_the_chart_gives() {
    let mut everything: Vec<(String, bool)> = Vec::new();
    switches(&values(), "", &mut everything);
    let everything: Vec<String> = everything
        .iter()
        .filter(|(path, default)| {
            !default && !path.starts_with("serviceAccount") && !path.contains("serviceMonitor")
        })
        .map(|(path, _)| format!("{path}=true"))
        .collect();
    let everything: Vec<&str> = everything.iter().map(String::as_str).chain(LISTS).collect();
    for sets in [&[][..], &everything] {
        let objects = render(VERSIONS[1], sets);
        for (kind, suffix) in [("DaemonSet", "-node"), ("Deployment", "-controller")] {
            let workload = only(&objects, kind, suffix);
            let driver = containers(workload).find(|container| text(container, "/name") == "driver").unwrap();
            let arguments: Vec<&str> =
                items(driver, "/args").iter().map(|arg| arg.as_str().unwrap()).collect();
            // Help comes only when everything before it was understood.
            let output = Command::new(env!("CARGO_BIN_EXE_composefs-csi"))
                .args(&arguments)
                .args(["--help"])
                .env("NODE_ID", "node")
                .output()
                .unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {arguments:?}: {complaint}", title(workload));
        }
    }
}
