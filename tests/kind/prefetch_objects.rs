//! What prefetching is tested with, as it would stand in a manifest; for objects.rs's reasons here and nowhere else.

use serde_json::{Value, json};

use super::objects::{LABEL, NAMESPACE};

/// An ImagePrefetch. `more` are fields of its spec.
pub fn wish(name: &str, images: &[&str], more: &Value) -> Value {
    let images: Vec<Value> = images.iter().map(|image| json!({"reference": image})).collect();
    let mut spec = more.clone();
    spec["images"] = json!(images);
    json!({
        "apiVersion": "csi.composefs.dev/v1alpha1",
        "kind": "ImagePrefetch",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// The right to read a Secret of the suite's namespace, for ServiceAccounts by namespace and name.
pub fn may_read(secret: &str, accounts: &[(&str, &str)]) -> [Value; 2] {
    let subject = |(namespace, name): &(&str, &str)| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
    let subjects: Vec<Value> = accounts.iter().map(subject).collect();
    let (group, name) = ("rbac.authorization.k8s.io", "prefetch-pull-secrets");
    [
        json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "Role",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": subjects,
        }),
    ]
}

/// A node without a kubelet, where nothing is to be scheduled.
pub fn further_node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {LABEL.0: LABEL.1, "type": "virtual-kubelet"}},
        "spec": {"unschedulable": true},
    })
}

/// An account of the suite's namespace with the rights of the release's node plugin.
pub fn further_account(name: &str) -> [Value; 2] {
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{NAMESPACE}-{name}"), "labels": {LABEL.0: LABEL.1}},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "composefs-csi-node"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }),
    ]
}

/// The node plugin of such a node, with a store of its own. No kubelet calls it.
pub fn further_plugin(node: &str, image: &str, account: &str, registries: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": node},
        "spec": {
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "driver",
                "image": image,
                "args": ["node", "--image-prefetch", "--kubelet-dir=/state/kubelet"],
                "env": [
                    {"name": "NODE_ID", "value": node},
                    {"name": "CSI_ENDPOINT", "value": "unix:///state/csi.sock"},
                    {"name": "COMPOSEFS_CSI_STATE_DIR", "value": "/state/composefs-csi"},
                    {"name": "COMPOSEFS_CSI_WITHOUT_POLICY", "value": "accept"},
                    {"name": "COMPOSEFS_CSI_INSECURE_REGISTRY", "value": registries.join(",")},
                ],
                "securityContext": {"privileged": true, "runAsUser": 0},
                "volumeMounts": [{"name": "state", "mountPath": "/state", "mountPropagation": "Bidirectional"}],
            }],
            "volumes": [{"name": "state", "emptyDir": {}}],
        },
    })
}
