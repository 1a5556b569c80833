//! Fields of other projects' kinds that this project uses, as their documentation has them:
//! prometheus-operator's monitoring.coreos.com/v1 and OpenShift's security.openshift.io/v1. A field that is not here
//! is misspelt, or new and to be looked up there.

use serde_json::Value;

use super::chart::{text, title};

const PER_ENDPOINT: [&str; 5] =
    ["port", "path", "interval", "relabelings/*/sourceLabels/*", "relabelings/*/targetLabel"];
const POD_MONITOR: [&str; 3] = ["selector/matchLabels/*", "podTargetLabels/*", "podMetricsEndpoints/*/"];
const SERVICE_MONITOR: [&str; 3] = ["selector/matchLabels/*", "podTargetLabels/*", "endpoints/*/"];
const RULE: [&str; 6] = [
    "groups/*/name",
    "groups/*/rules/*/alert",
    "groups/*/rules/*/expr",
    "groups/*/rules/*/for",
    "groups/*/rules/*/labels/*",
    "groups/*/rules/*/annotations/*",
];
const CONSTRAINTS: [&str; 20] = [
    "users/*",
    "groups",
    "allowPrivilegedContainer",
    "allowPrivilegeEscalation",
    "allowHostDirVolumePlugin",
    "allowHostNetwork",
    "allowHostPorts",
    "allowHostIPC",
    "allowHostPID",
    "allowedCapabilities/*",
    "defaultAddCapabilities",
    "requiredDropCapabilities/*",
    "readOnlyRootFilesystem",
    "runAsUser/type",
    "seLinuxContext/type",
    "fsGroup/type",
    "supplementalGroups/type",
    "seccompProfiles/*",
    "volumes/*",
    "priority",
];

/// Fields of an object that its project does not document, but for its metadata; nothing if the kind is none of these.
pub fn unknown(object: &Value) -> Option<Vec<String>> {
    let (version, root, known): (_, _, Vec<String>) = match text(object, "/kind") {
        "PodMonitor" => ("monitoring.coreos.com/v1", "spec/", with_endpoints(&POD_MONITOR)),
        "ServiceMonitor" => ("monitoring.coreos.com/v1", "spec/", with_endpoints(&SERVICE_MONITOR)),
        "PrometheusRule" => ("monitoring.coreos.com/v1", "spec/", RULE.map(str::to_owned).into()),
        "SecurityContextConstraints" => {
            ("security.openshift.io/v1", "", CONSTRAINTS.map(str::to_owned).into())
        }
        _ => return None,
    };
    assert_eq!(text(object, "/apiVersion"), version, "{}", title(object));
    let mut leaves = Vec::new();
    collect(object, String::new(), &mut leaves);
    leaves.retain(|leaf| {
        let frame = leaf == "apiVersion" || leaf == "kind" || leaf.starts_with("metadata/");
        let inside = leaf.strip_prefix(root);
        !frame && !inside.is_some_and(|inside| known.iter().any(|pattern| fits(inside, pattern)))
    });
    Some(leaves)
}

fn with_endpoints(patterns: &[&str]) -> Vec<String> {
    let (endpoints, others): (Vec<&str>, Vec<&str>) =
        patterns.iter().partition(|pattern| pattern.ends_with('/'));
    let fields = endpoints.iter().flat_map(|place| PER_ENDPOINT.map(|field| format!("{place}{field}")));
    fields.chain(others.into_iter().map(str::to_owned)).collect()
}

/// The paths of everything that is neither a map nor a list with something in it.
fn collect(value: &Value, path: String, found: &mut Vec<String>) {
    let below = |key: &str| {
        if path.is_empty() { key.to_owned() } else { format!("{path}/{}", key.replace('/', "~1")) }
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| collect(value, below(key), found));
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| collect(value, below(&index.to_string()), found));
        }
        _ => found.push(path),
    }
}

/// Whether a path is as a pattern says; `*` is any one part.
fn fits(path: &str, pattern: &str) -> bool {
    let (path, pattern): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), pattern.split('/').collect());
    path.len() == pattern.len()
        && path.iter().zip(pattern).all(|(part, wanted)| wanted == "*" || *part == wanted)
}
