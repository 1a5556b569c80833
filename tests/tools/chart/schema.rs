//! Values: what the schema refuses, and that every value has its type, its default and its comment.

use serde_json::Value;

use crate::support::chart::{VERSIONS, chart, documents, render_command, try_render};

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
        ("node.buildMemoryMiB=63", "/node/buildMemoryMiB"),
        ("node.pullWaitSeconds=120", "/node/pullWaitSeconds"),
        ("node.pullGraceSeconds=0", "/node/pullGraceSeconds"),
        ("node.gc.highPercent=100", "/node/gc/highPercent"),
        ("node.ranges.sizeMiB=0", "/node/ranges/sizeMiB"),
        ("node.ranges.sizeMiB=1025", "/node/ranges/sizeMiB"),
        ("node.ranges.atOnce=0", "/node/ranges/atOnce"),
        ("node.ranges.atOnce=65", "/node/ranges/atOnce"),
        ("node.ranges.atOnce=1.5", "/node/ranges/atOnce"),
        ("node.ranges.connections=-1", "/node/ranges/connections"),
        ("node.ranges.connections=1025", "/node/ranges/connections"),
        ("node.ranges.keepSeconds=-1", "/node/ranges/keepSeconds"),
        ("node.ranges.keepSeconds=315360001", "/node/ranges/keepSeconds"),
        ("node.partialPulls=some", "/node/partialPulls"),
        ("node.statAhead=-1", "/node/statAhead"),
        ("sidecars.livenessProbe.port=70000", "/sidecars/livenessProbe/port"),
        ("image.tag=latest", "/image/tag"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("sidecars.externalProvisioner.image.tag=", "/sidecars/externalProvisioner/image/tag"),
        ("node.extraArgs={v}", "/node/extraArgs/0"),
        ("node.extraArgs={--help}", "/node/extraArgs/0"),
        ("registries.certificateAuthorities.ca=secret", "/registries/certificateAuthorities/ca"),
        ("tokenRequests[0].expirationSeconds=3600", "/tokenRequests/0"),
        ("policy.withoutPolicy=warn", "/policy/withoutPolicy"),
        ("policy.mode=off", "/policy/mode"),
        ("policy.json.defaults[0].type=reject", "'defaults'"),
        ("policy.namespaces.team.transports.docker=none", "'default'"),
        ("policy.keys.key=-----BEGIN PRIVATE KEY-----", "/policy/keys/key"),
        ("imageCredentials.policy=Never", "/imageCredentials/policy"),
        ("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval"),
        ("tracing.otlpEndpoint=collector:4317", "/tracing/otlpEndpoint"),
        ("image.repository=registry/driver:1", "/image/repository"),
        ("driverName=a..b", "/driverName"),
        ("registries.insecure={a\\,b}", "/registries/insecure/0"),
        ("imageCredentials.allow={registry.example.com/*/a}", "/imageCredentials/allow/0"),
        ("tracing.otlpEndpoint=http://", "/tracing/otlpEndpoint"),
        ("pullSecrets.namespaces={a,a}", "/pullSecrets/namespaces"),
        ("node.layoutDirs={/a,/a}", "/node/layoutDirs"),
        ("node.objectSources={objects}", "/node/objectSources"),
        ("updateStrategy.rollingUpdate.maxUnavailable=0", "/updateStrategy/rollingUpdate/maxUnavailable"),
        ("updateStrategy.rollingUpdate.maxUnavailable=0%", "/updateStrategy/rollingUpdate/maxUnavailable"),
        ("resources.limits.memory=much", "/resources/limits/memory"),
        ("storageClasses[0].reclaimPolicy=Recycle", "/storageClasses/0"),
        ("fullnameOverride=a.b", "/fullnameOverride"),
        // no values: rendered, they would be 0 or empty, which the program refuses or takes for "nothing is kept"
        ("node.ranges=null", "'ranges'"),
        ("node.ranges.sizeMiB=null", "'sizeMiB'"),
        ("node.ranges.atOnce=null", "'atOnce'"),
        ("node.ranges.connections=null", "'connections'"),
        ("node.ranges.keepSeconds=null", "'keepSeconds'"),
        ("node.partialPulls=null", "'partialPulls'"),
        ("node.parallelLayers=null", "'parallelLayers'"),
        ("node.buildMemoryMiB=null", "'buildMemoryMiB'"),
        ("node.pullWaitSeconds=null", "'pullWaitSeconds'"),
        ("node.gc=null", "'gc'"),
        ("node.gc.minFreePercent=null", "'minFreePercent'"),
        // what would not work
        ("updateStrategy.rollingUpdate.maxSurge=1", "'maxSurge'"),
        ("extraEnv[0].name=A-B", "/extraEnv/0/name"),
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
        Value::Object(fields)
            if !fields.is_empty() && !place.ends_with("/requests") && !place.ends_with("affinity") =>
        {
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
    // `global` is shared with other charts.
    assert!(schema["additionalProperties"] == false || path == "/global", "{path} lets unknown keys in");
    for (key, schema) in properties {
        let path = format!("{path}/{key}");
        match value.get(key) {
            Some(value) => compare(root, schema, value, &path, missing),
            None => missing.push(path),
        }
    }
}

/// The defaults.
pub fn values() -> Value {
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
