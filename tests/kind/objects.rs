//! The objects that the suite creates, as they would stand in a manifest. Nothing here needs a cluster:
//! `tests/tools/manifests.rs` holds them against the types of the newest Kubernetes as well.

use serde_json::{Value, json};

/// The driver's name.
pub const DRIVER: &str = "csi.composefs.dev";
/// Where the suite's own objects are.
pub const NAMESPACE: &str = "composefs-csi-e2e";
/// What every object of the suite that has no namespace is labelled with.
pub const LABEL: (&str, &str) = ("composefs-csi-e2e", "suite");

/// The suite's namespace. The registries use the host's network, and one pod looks at the node.
pub fn namespace() -> Value {
    json!({
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
    })
}

/// A pod with one volume at /content.
pub fn reader(name: &str, image: &str, command: &[String], node: Option<&str>, volume: &Value) -> Value {
    let mut volume = volume.clone();
    volume["name"] = json!("content");
    json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "containers": [{
                "name": "reader",
                "image": image,
                "command": command,
                "volumeMounts": [{"name": "content", "mountPath": "/content"}],
            }],
            "volumes": [volume],
        },
    })
}

/// An inline volume of this driver.
pub fn inline(attributes: Value) -> Value {
    json!({"csi": {"driver": DRIVER, "readOnly": true, "volumeAttributes": attributes}})
}

/// The volume of a claim.
pub fn claim(name: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": name, "readOnly": true}})
}

/// A pod that sees all processes and mounts of its node.
pub fn inspector(name: &str, image: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "hostPID": true,
            "automountServiceAccountToken": false,
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "inspector",
                "image": image,
                "command": ["sleep", "1000000"],
                "securityContext": {"privileged": true},
            }],
        },
    })
}

/// A PersistentVolume of an image.
pub fn volume(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL.0: LABEL.1}},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "csi": {
                "driver": DRIVER,
                "volumeHandle": name,
                "readOnly": true,
                "volumeAttributes": {"image": image},
            },
        },
    })
}

/// The claim of a certain PersistentVolume.
pub fn claim_of_volume(name: &str, volume: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// A claim of a class.
pub fn claim_of_class(name: &str, class: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": class,
            "resources": {"requests": {"storage": "1Mi"}},
        },
    })
}

/// A StorageClass of this driver.
pub fn class(name: &str, parameters: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL.0: LABEL.1}},
        "provisioner": DRIVER,
        "parameters": parameters,
    })
}

/// A Secret as `kubectl create secret docker-registry` makes it; `auth` is base64 of `user:password`.
pub fn secret(name: &str, host: &str, auth: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL.0: LABEL.1}},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json!({"auths": {host: {"auth": auth}}}).to_string()},
    })
}

/// A ServiceAccount with a pull secret.
pub fn account(name: &str, secret: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL.0: LABEL.1}},
        "imagePullSecrets": [{"name": secret}],
    })
}

/// The configuration of a registry.
pub fn registry_files(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

/// A registry's pod.
pub fn registry(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"suite": "registry"}},
        "spec": {
            "hostNetwork": true,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "registry",
                "image": image,
                "command": ["registry", "serve", "/config/config.yml"],
                "volumeMounts": [
                    {"name": "config", "mountPath": "/config"},
                    {"name": "data", "mountPath": "/data"},
                ],
            }],
            "volumes": [{"name": "config", "configMap": {"name": name}}, {"name": "data", "emptyDir": {}}],
        },
    })
}

/// A pod that mounts a volume in every place that Kubernetes has. The image has `data/blob`, `etc/motd` and a directory of
/// the pod's name. `recursive`: the API server knows `recursiveReadOnly`.
pub fn places(name: &str, image: &str, volume: &Value, recursive: bool) -> Value {
    let mut volume = volume.clone();
    volume["name"] = json!("content");
    let at = |path: &str, more: &Value| {
        let mut mount = json!({"name": "content", "mountPath": path});
        for (field, value) in more.as_object().into_iter().flatten() {
            mount[field] = value.clone();
        }
        mount
    };
    let mut mounts = vec![
        at("/content", &json!({})),
        at("/read-only", &json!({"readOnly": true})),
        at("/writable", &json!({"readOnly": false})),
        at("/part", &json!({"subPath": "data"})),
        at("/file", &json!({"subPath": "etc/motd"})),
        at("/own", &json!({"subPathExpr": "$(POD_NAME)"})),
        at("/follows", &json!({"mountPropagation": "HostToContainer"})),
        at("/alone", &json!({"mountPropagation": "None"})),
    ];
    mounts.extend(
        recursive.then(|| at("/recursive", &json!({"readOnly": true, "recursiveReadOnly": "Enabled"}))),
    );
    let names = json!([{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let sleeps = ["sleep", "1000000"];
    let both_ways = at("/both", &json!({"mountPropagation": "Bidirectional"}));
    json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "initContainers": [{
                "name": "first",
                "image": image,
                "command": ["sh", "-c", "test -s /first/data/blob && ! touch /first/x"],
                "volumeMounts": [at("/first", &json!({}))],
            }],
            "containers": [
                {"name": "reader", "image": image, "command": sleeps, "env": names, "volumeMounts": mounts},
                {
                    "name": "second",
                    "image": image,
                    "command": sleeps,
                    "securityContext": {"privileged": true},
                    "volumeMounts": [both_ways],
                },
            ],
            "volumes": [volume],
        },
    })
}

/// A container for a running pod, with its volume.
pub fn ephemeral(name: &str, image: &str) -> Value {
    json!({"spec": {"ephemeralContainers": [{
        "name": name,
        "image": image,
        "command": ["sleep", "1000000"],
        "volumeMounts": [{"name": "content", "mountPath": "/content"}],
    }]}})
}
