//! The chart, rendered by the real helm for the oldest and the newest Kubernetes, with every switch on and off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support {
    pub mod chart;
    pub mod objects;
    pub mod tools;
}

use std::process::Command;

use serde_json::Value;
use support::chart::{
    VERSIONS, chart, documents, helm, items, only, render, render_command, repository, text, title,
    try_render,
};
use support::objects::{check, containers, unknown_fields};

#[test]
fn helm_lint_finds_nothing() {
    let output = helm(&["lint", "--strict", "--kube-version", VERSIONS[0], "charts/composefs-csi"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
}

/// Each mistake is refused, and the message names the value.
#[test]
fn the_schema_names_what_is_wrong() {
    for (set, named) in [
        // unknown values
        ("kubletDir=/var/lib/kubelet", "'kubletDir'"),
        ("node.paralellLayers=3", "'paralellLayers'"),
        ("image.tagg=1", "'tagg'"),
        ("controller.secrets.all=true", "'all'"),
        // wrong types
        ("controller.enabled=yes", "/controller/enabled"),
        ("node.parallelLayers=many", "/node/parallelLayers"),
        ("tolerations=all", "/tolerations"),
        ("registries.insecure=registry:5000", "/registries/insecure"),
        // values out of a list
        ("logFormat=xml", "/logFormat"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("node.dnsPolicy=None", "/node/dnsPolicy"),
        ("node.integrity=none", "/node/integrity"),
        ("updateStrategy.type=Recreate", "/updateStrategy/type"),
        // values out of their range or form
        ("driverName=CSI.example.com", "/driverName"),
        ("kubeletDir=/var/lib/kubelet/", "/kubeletDir"),
        ("stateDir=relative", "/stateDir"),
        ("stateDir=/var/../etc", "/stateDir"),
        ("node.pullWaitSeconds=120", "/node/pullWaitSeconds"),
        ("node.gc.highPercent=100", "/node/gc/highPercent"),
        ("sidecars.livenessProbe.port=70000", "/sidecars/livenessProbe/port"),
        ("image.tag=latest", "/image/tag"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("sidecars.externalProvisioner.image.tag=", "/sidecars/externalProvisioner/image/tag"),
        ("node.extraArgs={v}", "/node/extraArgs/0"),
        ("registries.certificateAuthorities.ca=secret", "/registries/certificateAuthorities/ca"),
        ("tokenRequests[0].expirationSeconds=3600", "/tokenRequests/0"),
        ("policy.withoutPolicy=warn", "/policy/withoutPolicy"),
        ("policy.json.defaults[0].type=reject", "'defaults'"),
        ("policy.namespaces.team.transports.docker=none", "'default'"),
        ("policy.keys.key=-----BEGIN PRIVATE KEY-----", "/policy/keys/key"),
        ("imageCredentials.policy=Never", "/imageCredentials/policy"),
        ("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval"),
        ("tracing.otlpEndpoint=collector:4317", "/tracing/otlpEndpoint"),
        ("credentialProviders.binDir=/opt/bin", "credentialProviders.configFile"),
        // what would not work
        ("updateStrategy.rollingUpdate.maxSurge=1", "'maxSurge'"),
        ("extraEnv[0].name=NODE_ID", "/extraEnv/0/name"),
        ("node.extraVolumes[0].hostPath.path=/srv", "/node/extraVolumes/0"),
        ("serviceAccount.node.create=false", "serviceAccount.node.name"),
    ] {
        let output = try_render(VERSIONS[1], &[set]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{set} was accepted");
        assert!(said.contains(named), "{set} should be named {named}: {said}");
    }
}

/// Whatever the value is, something of another kind in its place is refused, and the message names the place. A
/// value that the schema forgot would go through to a pod that does not start.
#[test]
fn the_schema_knows_the_type_of_every_value() {
    let mut places = Vec::new();
    leaves(&values(), "", &mut places);
    assert!(places.len() >= 80, "{}", places.len());
    for (place, value) in places {
        let wrong = if value.is_object() { "7" } else { r#"{"wrong": {"type": 7}}"# };
        let set = format!("{}={wrong}", place.trim_start_matches('/').replace('/', "."));
        let output = render_command(VERSIONS[1], &["--set-json", &set]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{set} was accepted");
        // In a map of names to texts it is the text that is wrong.
        assert!(said.contains(&format!("'{place}")), "{set}: {said}");
    }
}

/// What is no map of further values, with its place.
fn leaves(value: &Value, place: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !place.ends_with("/requests") => {
            for (key, value) in fields {
                leaves(value, &format!("{place}/{key}"), found);
            }
        }
        leaf => found.push((place.to_owned(), leaf.clone())),
    }
}

/// Without this, a value could be allowed and do nothing, or have no default and no comment.
#[test]
fn schema_and_values_have_the_same_keys() {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let values = values();
    let mut missing = Vec::new();
    compare(&schema, &schema, &values, "", &mut missing);
    missing.retain(|path| path != "/global");
    assert_eq!(missing, Vec::<String>::new(), "in the schema and not in values.yaml");
}

fn compare(root: &Value, schema: &Value, value: &Value, path: &str, missing: &mut Vec<String>) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).expect("a definition"),
        None => schema,
    };
    // What is written as a whole or not at all, in a form that is not this chart's.
    let own = ["resources", "rollingUpdate", "policy/json"].iter().any(|end| path.ends_with(end));
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|_| !own) else {
        return;
    };
    assert_eq!(schema["additionalProperties"], false, "{path} lets unknown keys in");
    for (key, schema) in properties {
        let path = format!("{path}/{key}");
        match value.get(key) {
            Some(value) => compare(root, schema, value, &path, missing),
            None => missing.push(path),
        }
    }
}

fn values() -> Value {
    documents(&std::fs::read_to_string(chart().join("values.yaml")).unwrap()).remove(0)
}

/// Every value of values.yaml has a comment that begins with `--`, its own or that of a map as a whole. The fields
/// of a sidecar's image are explained once, at the driver's own.
#[test]
fn every_value_has_a_comment() {
    let text = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
    let mut explained: Vec<usize> = Vec::new();
    let mut comment = false;
    for (number, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let indent = line.len() - start.len();
        if start.is_empty() || start.starts_with('#') {
            comment = !start.is_empty() && (comment || start.starts_with("# -- "));
            continue;
        }
        explained.retain(|&level| level < indent);
        if comment || start == "image:" && indent > 0 {
            explained.push(indent);
        }
        let group = start.ends_with(':');
        assert!(!explained.is_empty() || group, "values.yaml:{}: {line}", number + 1);
        comment = false;
    }
}

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
        if !default {
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
const LISTS: [&str; 27] = [
    "image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "imagePullSecrets[0].name=pull",
    "registries.insecure={localhost:5000,mirror:80}",
    "registries.certificateAuthorities.own\\.pem=-----BEGIN CERTIFICATE-----",
    "registries.authSecret=credentials",
    "tokenRequests[0].audience=registry",
    "node.layoutDirs={/srv/images,/srv/more}",
    "sidecars.seLinuxType=spc_t",
    "networkPolicy.egress[0].ports[0].port=443",
    "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus",
    "policy.json.default[0].type=reject",
    "policy.namespaces.team.default[0].type=insecureAcceptAnything",
    "policy.keys.team\\.pub=key",
    "policy.verifierDir=/opt/verifiers",
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

#[test]
fn defaults_render_soundly() {
    for kubernetes in VERSIONS {
        let objects = render(kubernetes, &[]);
        check(&objects, kubernetes);
        for object in &objects {
            assert_eq!(unknown_fields(object), Vec::<String>::new(), "{}", title(object));
        }
    }
}

/// An unknown flag, or a value that the program refuses, would be seen in a cluster only.
#[test]
fn the_program_takes_the_arguments_that_the_chart_gives() {
    let mut everything: Vec<(String, bool)> = Vec::new();
    switches(&values(), "", &mut everything);
    let everything: Vec<String> = everything
        .iter()
        .filter(|(path, default)| !default && !path.starts_with("serviceAccount"))
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

/// What a release of Kubernetes does not know must not be sent to it.
#[test]
fn the_csi_driver_fits_the_release() {
    let sets = ["tokenRequests[0].audience=a", "tokenRequests[0].expirationSeconds=600"];
    for (kubernetes, republish, tokens) in
        [("1.20.0", false, false), ("1.21.0", true, false), ("1.34.9", true, false), ("1.35.0", true, true)]
    {
        let objects = if tokens {
            render(kubernetes, &sets)
        } else {
            // Tokens among the attributes of a volume could be anybody's writing; see src/volume/secrets.rs.
            let said = try_render(kubernetes, &sets).stderr;
            assert!(String::from_utf8_lossy(&said).contains("tokenRequests needs Kubernetes 1.35"));
            render(kubernetes, &[])
        };
        let driver = only(&objects, "CSIDriver", "csi.composefs.dev");
        let spec = &driver["spec"];
        assert_eq!(spec["attachRequired"], false);
        assert_eq!(spec["podInfoOnMount"], true);
        assert_eq!(spec["fsGroupPolicy"], "None");
        assert_eq!(spec["volumeLifecycleModes"], serde_json::json!(["Persistent", "Ephemeral"]));
        let requests = serde_json::json!([{ "audience": "a", "expirationSeconds": 600 }]);
        assert_eq!(spec.get("tokenRequests"), tokens.then_some(&requests), "{kubernetes}");
        assert_eq!(spec.get("requiresRepublish").is_some(), republish, "{kubernetes}");
        assert_eq!(spec.get("serviceAccountTokenInSecrets").is_some(), tokens, "{kubernetes}");
        // Before 1.25 there is no such field. It is never on: the driver takes no labels from kubelet.
        let mount = (kubernetes != "1.20.0" && kubernetes != "1.21.0").then_some(serde_json::json!(false));
        assert_eq!(spec.get("seLinuxMount"), mount.as_ref(), "{kubernetes}");
        let label = "/metadata/labels/security.openshift.io~1csi-ephemeral-volume-profile";
        assert_eq!(text(driver, label), "restricted");
    }
}

#[test]
fn the_node_plugin_is_told_the_label_of_volumes() {
    let label = "system_u:object_r:container_ro_file_t:s0";
    for (sets, expected) in [
        (vec![], "--selinux-context=auto".to_owned()),
        (vec!["selinux.context=none".to_owned()], "--selinux-context=none".to_owned()),
        (vec![format!("selinux.context={label}")], format!("--selinux-context={label}")),
    ] {
        let objects = render(VERSIONS[1], &sets.iter().map(String::as_str).collect::<Vec<_>>());
        let containers = items(only(&objects, "DaemonSet", "-node"), "/spec/template/spec/containers");
        let driver = containers.iter().find(|container| container["name"] == "driver").unwrap();
        assert!(items(driver, "/args").iter().any(|argument| *argument == expected), "{driver}");
    }
    let output = try_render(VERSIONS[1], &["selinux.context=container_ro_file_t"]);
    assert!(!output.status.success(), "a type alone is no label");
}

#[test]
fn one_value_moves_kubelets_directory() {
    let objects = render(VERSIONS[1], &["kubeletDir=/var/lib/k0s/kubelet"]);
    let everything = serde_json::to_string(&objects).unwrap();
    assert!(!everything.contains("/var/lib/kubelet"), "{everything}");
    let node = only(&objects, "DaemonSet", "-node");
    let paths: Vec<&str> = items(node, "/spec/template/spec/volumes")
        .iter()
        .map(|volume| text(volume, "/hostPath/path"))
        .filter(|path| path.starts_with("/var/lib/k0s/kubelet/"))
        .map(|path| path.trim_start_matches("/var/lib/k0s/kubelet/"))
        .collect();
    assert_eq!(paths, ["plugins/csi.composefs.dev", "plugins_registry", "pods"]);
}

/// Several controllers are there for the day on which one node goes; one alone must not hold a node up.
#[test]
fn replicas_of_the_controller_spread_and_keep_one() {
    let budgets = |objects: &[Value]| {
        objects
            .iter()
            .filter(|object| text(object, "/kind") == "PodDisruptionBudget")
            .cloned()
            .collect::<Vec<_>>()
    };
    let spread = "/spec/template/spec/topologySpreadConstraints";
    let one = render(VERSIONS[1], &[]);
    assert_eq!(budgets(&one), Vec::<Value>::new());
    assert_eq!(only(&one, "Deployment", "").pointer(spread), None);
    for (kubernetes, version) in [("1.20.0", "policy/v1beta1"), ("1.21.0", "policy/v1")] {
        let objects = render(kubernetes, &["controller.replicas=3"]);
        let deployment = only(&objects, "Deployment", "-controller");
        let selector = &deployment["spec"]["selector"];
        let [budget] = &budgets(&objects)[..] else { panic!("one budget") };
        assert_eq!(text(budget, "/apiVersion"), version);
        assert_eq!(budget["spec"], serde_json::json!({ "maxUnavailable": 1, "selector": selector }));
        let [rule] = items(deployment, spread) else { panic!("one rule: {deployment}") };
        assert_eq!((&rule["labelSelector"], text(rule, "/whenUnsatisfiable")), (selector, "ScheduleAnyway"));
    }
    let own = ["controller.replicas=2", "controller.topologySpreadConstraints[0].topologyKey=zone"];
    let objects = render(VERSIONS[1], &own);
    assert_eq!(items(only(&objects, "Deployment", ""), spread), [serde_json::json!({"topologyKey": "zone"})]);
}

/// Names of the operator's own choice, as long as may be, hold together and fit.
#[test]
fn names_can_be_chosen() {
    let long = "a".repeat(63);
    let switches = ["pullSecrets.enabled=true", "startupTaint.enabled=true", "grafanaDashboard.enabled=true"];
    for name in ["nameOverride=images", "fullnameOverride=images", &format!("fullnameOverride={long}")] {
        let sets: Vec<&str> = [name].into_iter().chain(switches).chain(LISTS).collect();
        let objects = render(VERSIONS[1], &sets);
        check(&objects, name);
        let chosen = name.split_once('=').expect("a name").1.get(..50).unwrap_or("images");
        for object in objects.iter().filter(|object| text(object, "/kind") != "CSIDriver") {
            let title = title(object);
            assert!(title.contains(chosen), "{title}");
            // Pods are called after these, and a host's name has 63 characters.
            let workload = ["DaemonSet", "Deployment"].contains(&text(object, "/kind"));
            assert!(!workload || text(object, "/metadata/name").len() <= 63, "{title}");
        }
    }
}

/// Rights follow the switches.
#[test]
fn rights_follow_the_switches() {
    let rules = |sets: &[&str]| {
        let roles = ["Role", "ClusterRole"];
        let mut found: Vec<String> = render(VERSIONS[1], sets)
            .iter()
            .filter(|object| roles.contains(&text(object, "/kind")))
            .map(|object| format!("{} {}", title(object), text(object, "/metadata/namespace")))
            .collect();
        found.sort();
        found
    };
    let cluster = "ClusterRole/test-composefs-csi-controller ";
    let lease = "Role/test-composefs-csi-controller somewhere";
    let node = "ClusterRole/test-composefs-csi-node ";
    assert_eq!(rules(&[]), [cluster, node, lease]);
    let none = ["controller.enabled=false", "events.enabled=false"];
    assert_eq!(rules(&none), [""; 0]);
    let taint = ["controller.enabled=false", "events.enabled=false", "startupTaint.enabled=true"];
    assert_eq!(rules(&taint), [node]);
    let secrets = "ClusterRole/test-composefs-csi-controller-secrets ";
    assert_eq!(rules(&["controller.secrets.allNamespaces=true"]), [cluster, secrets, node, lease]);
    let (a, b) =
        ("Role/test-composefs-csi-controller-secrets a", "Role/test-composefs-csi-controller-secrets b");
    assert_eq!(rules(&["controller.secrets.namespaces={a,b}"]), [cluster, node, lease, a, b]);
    let pull = "ClusterRole/test-composefs-csi-node-pull-secrets ";
    assert_eq!(rules(&["pullSecrets.enabled=true"]), [cluster, node, pull, lease]);
    let (a, b) =
        ("Role/test-composefs-csi-node-pull-secrets a", "Role/test-composefs-csi-node-pull-secrets b");
    let sets = ["pullSecrets.enabled=true", "pullSecrets.namespaces={a,b}"];
    assert_eq!(rules(&sets), [cluster, node, lease, a, b]);

    // Who has no rights has no token either.
    for (sets, token) in [(&none[..], false), (&taint[..], true), (&[][..], true)] {
        let objects = render(VERSIONS[1], sets);
        let pod = &only(&objects, "DaemonSet", "-node")["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], token, "{sets:?}");
    }
}

/// The reason for each right stands beside it.
#[test]
fn every_verb_says_why() {
    let mut verbs = 0;
    for entry in std::fs::read_dir(chart().join("templates")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            assert!(!line.starts_with("verbs: ["), "{}: one verb per line: {line}", path.display());
            let verb = line.starts_with("- ") && !line.starts_with("- apiGroups");
            inside = line == "verbs:" || inside && (verb || line.starts_with("{{-"));
            if inside && verb {
                assert!(line.contains(" # "), "{}: no reason: {line}", path.display());
                verbs += 1;
            }
        }
    }
    assert!(verbs >= 10, "{verbs}");
}

#[test]
fn the_manifests_are_the_charts() {
    let fresh = tempfile::NamedTempFile::new().unwrap();
    let script = repository().join("scripts/manifests.sh");
    let output = Command::new(script).arg(fresh.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (fresh, kept) = (
        std::fs::read_to_string(fresh.path()).unwrap(),
        std::fs::read_to_string(repository().join("manifests/composefs-csi.yaml")).unwrap(),
    );
    assert!(fresh == kept, "manifests/composefs-csi.yaml is not what the chart renders; run: make manifests");
    check(&documents(&kept), "manifests");
}

#[test]
fn chart_and_program_have_one_version() {
    let chart = documents(&std::fs::read_to_string(chart().join("Chart.yaml")).unwrap()).remove(0);
    assert_eq!(text(&chart, "/version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&chart, "/appVersion"), env!("CARGO_PKG_VERSION"));
}

/// A panel on a metric that is not exported would stay empty and look like calm.
#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let objects = render(VERSIONS[1], &["grafanaDashboard.enabled=true"]);
    let map = only(&objects, "ConfigMap", "-dashboard");
    let dashboard: Value = serde_json::from_str(text(map, "/data/composefs-csi.json")).unwrap();
    let documented = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let name = regex::Regex::new("composefs_csi_[a-z_]+").unwrap();
    let mut used = std::collections::BTreeSet::new();
    for panel in items(&dashboard, "/panels").iter().flat_map(|panel| items(panel, "/targets")) {
        let found = name.find_iter(text(panel, "/expr")).map(|found| found.as_str()).collect::<Vec<_>>();
        assert!(!found.is_empty(), "{panel}");
        used.extend(found.into_iter().map(str::to_owned));
    }
    for metric in used {
        // A histogram's series.
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end));
        let row = |name: &str| documented.contains(&format!("| `{name}` |"));
        assert!(row(&metric) || family.is_some_and(row), "docs/metrics.md has no {metric}");
    }
}
