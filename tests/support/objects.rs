//! What must be true of the rendered objects, whatever the values.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::chart::{items, text, title};
use super::foreign::unknown;
use super::own;

const CLUSTER_WIDE: [&str; 9] = [
    "CSIDriver",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "SecurityContextConstraints",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// The containers of a workload.
pub fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    items(workload, "/spec/template/spec/containers").iter()
}

/// Fails, naming `case`, where an object is not as it must be.
pub fn check(objects: &[Value], case: &str) {
    let mut titles: Vec<String> = objects.iter().map(|o| title(o) + text(o, "/metadata/namespace")).collect();
    titles.sort();
    let count = titles.len();
    titles.dedup();
    assert_eq!(titles.len(), count, "{case}: an object appears twice: {titles:?}");
    for object in objects {
        let case = &format!("{case}: {}", title(object));
        let namespaced = !text(object, "/metadata/namespace").is_empty();
        let wide = CLUSTER_WIDE.contains(&text(object, "/kind"));
        assert_eq!(namespaced, !wide, "{case}: namespace");
        for label in ["name", "instance", "component", "version", "part-of", "managed-by"] {
            let value = text(object, &format!("/metadata/labels/app.kubernetes.io~1{label}"));
            assert!(!value.is_empty(), "{case}: label {label}");
        }
        match text(object, "/kind") {
            "DaemonSet" | "Deployment" => workload(object, case),
            "Role" | "ClusterRole" => role(object, case),
            _ => {}
        }
        for (kind, name) in references(object) {
            let there = |other: &Value| text(other, "/kind") == kind && text(other, "/metadata/name") == name;
            assert!(objects.iter().any(there), "{case}: there is no {kind} {name}");
        }
    }
}

/// Objects of the chart that an object needs, by kind and name.
fn references(object: &Value) -> Vec<(&'static str, &str)> {
    let mut found = Vec::new();
    for volume in items(object, "/spec/template/spec/volumes") {
        found.push(("ConfigMap", text(volume, "/configMap/name")));
    }
    let mut account = |name| {
        // The operator's own, where the chart is told so.
        if name != "theirs" {
            found.push(("ServiceAccount", name));
        }
    };
    account(text(object, "/spec/template/spec/serviceAccountName"));
    for subject in items(object, "/subjects") {
        account(text(subject, "/name"));
    }
    match text(object, "/roleRef/kind") {
        // OpenShift's own.
        "ClusterRole" if text(object, "/roleRef/name").starts_with("system:") => {}
        "ClusterRole" => found.push(("ClusterRole", text(object, "/roleRef/name"))),
        "Role" => found.push(("Role", text(object, "/roleRef/name"))),
        _ => {}
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn workload(object: &Value, case: &str) {
    let pod = &object["spec"]["template"]["spec"];
    let node = text(object, "/kind") == "DaemonSet";
    assert_eq!(text(pod, "/securityContext/seccompProfile/type"), "RuntimeDefault", "{case}");
    assert!(text(pod, "/priorityClassName").starts_with("system-"), "{case}");
    let selector = object["spec"]["selector"]["matchLabels"].as_object().unwrap();
    for (key, value) in selector {
        assert_eq!(
            object["spec"]["template"]["metadata"]["labels"].get(key),
            Some(value),
            "{case}: selector"
        );
    }
    for forbidden in ["hostPID", "hostIPC"] {
        assert_eq!(pod.get(forbidden), None, "{case}: {forbidden}");
    }
    if node {
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]), "{case}");
        assert_eq!(object["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "10%", "{case}");
    } else {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{case}");
        let mut hosts = items(pod, "/volumes").iter().filter(|volume| volume.get("hostPath").is_some());
        let layouts = hosts.all(|volume| text(volume, "/name").starts_with("layouts-"));
        assert!(
            layouts,
            "{case}: of its host, the controller may see what node.layoutDirs names, and no more"
        );
    }
    let volumes: Vec<&str> = items(pod, "/volumes").iter().map(|volume| text(volume, "/name")).collect();
    for container in containers(object) {
        let case = &format!("{case}: {}", text(container, "/name"));
        let driver = text(container, "/name") == "driver";
        let security = &container["securityContext"];
        assert_eq!(security["readOnlyRootFilesystem"], true, "{case}");
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{case}");
        let privileged = node && driver;
        assert_eq!(security["privileged"] == true, privileged, "{case}: privileged");
        assert_eq!(security["allowPrivilegeEscalation"] == false, !privileged, "{case}: escalation");
        let writes = |argument: &Value| {
            let limit = |flag| argument.as_str().and_then(|text| text.strip_prefix(flag));
            let limits = [limit("--writable-max-size="), limit("--writable-max-disk-size=")];
            limits.into_iter().flatten().any(|limit| limit != "0")
        };
        let mut added = vec![
            "SYS_ADMIN",
            "DAC_OVERRIDE",
            "MKNOD",
            "SYSLOG",
            "SETUID",
            "SETGID",
            "CHOWN",
            "FOWNER",
            "FSETID",
        ];
        let writes = items(container, "/args").iter().any(writes);
        let links = items(container, "/env").iter().any(|set| set["name"] == "COMPOSEFS_CSI_OBJECT_SOURCE");
        if writes || links {
            added.push("DAC_READ_SEARCH");
        }
        if writes {
            added.push("SETFCAP");
        }
        let added = privileged.then(|| json!(added));
        assert_eq!(security["capabilities"].get("add"), added.as_ref(), "{case}: capabilities");
        let mounts = items(container, "/volumeMounts");
        let bidirectional: Vec<&str> = mounts
            .iter()
            .filter(|mount| text(mount, "/mountPropagation") == "Bidirectional")
            .map(|mount| text(mount, "/name"))
            .collect();
        assert_eq!(bidirectional, if privileged { &["pods"][..] } else { &[] }, "{case}: propagation");
        for mount in mounts {
            assert!(volumes.contains(&text(mount, "/name")), "{case}: {mount}");
        }
        let (_, version) = text(container, "/image").rsplit_once(':').expect("a tag or digest");
        assert!(version != "latest" && !version.contains('/'), "{case}: {version}");
        assert!(container.pointer("/resources/requests/memory").is_some(), "{case}: requests");
        // Mounts outlive the pod, so there is nothing to do when it stops.
        assert_eq!(container.get("lifecycle"), None, "{case}");
        if driver {
            assert!(container.get("livenessProbe").is_some(), "{case}: livenessProbe");
        }
    }
}

fn role(object: &Value, case: &str) {
    for rule in items(object, "/rules") {
        for field in ["apiGroups", "resources", "verbs"] {
            let list = items(rule, &format!("/{field}"));
            assert!(!list.is_empty(), "{case}: {field}");
            assert!(!list.iter().any(|value| value == "*"), "{case}: every {field} is too much");
        }
        let sensitive = |value: &Value| value == "secrets" || value == "serviceaccounts";
        if items(rule, "/resources").iter().any(sensitive) {
            assert_eq!(rule["verbs"], json!(["get"]), "{case}: {rule}");
        }
    }
}

/// Fields that Kubernetes 1.36 does not know: those that do not come back from its types.
///
/// Of other projects' kinds: those that are not documented, see [`super::foreign`].
pub fn unknown_fields(object: &Value) -> Vec<String> {
    let back = match text(object, "/kind") {
        "DaemonSet" => round_trip::<DaemonSet>(object),
        "Deployment" => round_trip::<Deployment>(object),
        "CSIDriver" => round_trip::<CSIDriver>(object),
        "ConfigMap" => round_trip::<ConfigMap>(object),
        "Namespace" => round_trip::<Namespace>(object),
        "Node" => round_trip::<Node>(object),
        "ServiceAccount" => round_trip::<ServiceAccount>(object),
        "Role" => round_trip::<Role>(object),
        "ClusterRole" => round_trip::<ClusterRole>(object),
        "RoleBinding" => round_trip::<RoleBinding>(object),
        "ClusterRoleBinding" => round_trip::<ClusterRoleBinding>(object),
        "NetworkPolicy" => round_trip::<NetworkPolicy>(object),
        "PodDisruptionBudget" => round_trip::<PodDisruptionBudget>(object),
        "Pod" => round_trip::<Pod>(object),
        "Service" => round_trip::<Service>(object),
        "StorageClass" => round_trip::<StorageClass>(object),
        "PersistentVolume" => round_trip::<PersistentVolume>(object),
        "PersistentVolumeClaim" => round_trip::<PersistentVolumeClaim>(object),
        "Secret" => round_trip::<Secret>(object),
        "CustomResourceDefinition" => round_trip::<CustomResourceDefinition>(object),
        "ValidatingAdmissionPolicy" => round_trip::<ValidatingAdmissionPolicy>(object),
        "ValidatingAdmissionPolicyBinding" => round_trip::<ValidatingAdmissionPolicyBinding>(object),
        // Our own, by the schema that the chart gives to the API server.
        "ImagePrefetch" => return own::undefined(object),
        other => return unknown(object).unwrap_or_else(|| panic!("{other} is a new kind: add its type")),
    };
    let mut lost = Vec::new();
    missing(object, &back, String::new(), &mut lost);
    lost
}

fn round_trip<T: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{} is malformed: {error}", title(object)));
    serde_json::to_value(typed).expect("it was JSON")
}

fn missing(before: &Value, after: &Value, path: String, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                match after.get(key) {
                    Some(after) => missing(value, after, format!("{path}/{key}"), lost),
                    // Nothing, and an empty list, are not written back.
                    None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {}
                    None => lost.push(format!("{path}/{key}")),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                missing(before, after, format!("{path}/{index}"), lost);
            }
        }
        _ => {}
    }
}
