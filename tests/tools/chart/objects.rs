//! Single objects, by the values and the release of Kubernetes that shape them.

use serde_json::Value;

use super::switches::LISTS;
use crate::support::chart::{VERSIONS, items, only, render, text, title, try_render};
use crate::support::objects::check;

/// A volume that follows a tag is asked for with what comes with a publish, and that is in memory only.
#[test]
fn volumes_that_follow_a_tag_are_published_again() {
    let republish = |objects: &[Value]| {
        only(objects, "CSIDriver", "csi.composefs.dev")["spec"]["requiresRepublish"].clone()
    };
    let arguments = |objects: &[Value]| {
        only(objects, "DaemonSet", "-node")["spec"]["template"]["spec"]["containers"].to_string()
    };
    let off = render("1.34.9", &[]);
    assert!(republish(&off) == false && !arguments(&off).contains("--follow-interval"));
    let on = render("1.34.9", &["node.followIntervalSeconds=300"]);
    assert!(republish(&on) == true && arguments(&on).contains("--follow-interval=300"));
    let refused = try_render("1.34.9", &["node.followIntervalSeconds=5"]);
    assert!(!refused.status.success(), "registries must not notice");
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
fn a_node_plugin_is_kept_to_its_own_object_where_the_release_can() {
    for (kubernetes, there) in [("1.20.0", false), ("1.29.9", false), ("1.30.0", true), (VERSIONS[1], true)] {
        let objects = render(kubernetes, &["prefetch.enabled=true"]);
        let kinds: Vec<&str> = objects.iter().map(|object| text(object, "/kind")).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "CustomResourceDefinition").count(), 2);
        for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
            assert_eq!(kinds.contains(&kind), there, "{kubernetes}");
        }
        if there {
            let policy = only(&objects, "ValidatingAdmissionPolicy", "-node-image-caches");
            let who = text(policy, "/spec/matchConditions/0/expression");
            assert!(who.contains(":somewhere:test-composefs-csi-node\""), "{who}");
        }
    }
}

#[test]
fn openshift_is_told_what_inline_volumes_may_give_to_pods() {
    let label = "/metadata/labels/security.openshift.io~1csi-ephemeral-volume-profile";
    for (set, expected) in [
        ("policy.requireComposefsDigest=true", "restricted"),
        ("policy.keepPrivileges=true", "privileged"),
        ("policy.keepSpecialFiles=true", "privileged"),
    ] {
        let objects = render(VERSIONS[1], &[set]);
        assert_eq!(text(only(&objects, "CSIDriver", "csi.composefs.dev"), label), expected, "{set}");
    }
}

#[test]
fn the_node_plugin_is_told_the_label_of_volumes() {
    let label = "system_u:object_r:container_ro_file_t:s0";
    for (sets, expected) in [
        (vec![], "auto"),
        (vec!["selinux.context=none".to_owned()], "none"),
        (vec![format!("selinux.context={label}")], label),
    ] {
        let objects = render(VERSIONS[1], &sets.iter().map(String::as_str).collect::<Vec<_>>());
        let containers = items(only(&objects, "DaemonSet", "-node"), "/spec/template/spec/containers");
        let driver = containers.iter().find(|container| container["name"] == "driver").unwrap();
        let expected = serde_json::json!({"name": "COMPOSEFS_CSI_SELINUX_CONTEXT", "value": expected});
        assert!(items(driver, "/env").contains(&expected), "{driver}");
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
    let staging = "plugins/kubernetes.io/csi/csi.composefs.dev";
    assert_eq!(paths, ["plugins/csi.composefs.dev", "plugins_registry", "pods", staging]);
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
        let own = |object: &&Value| !["CSIDriver", "StorageClass"].contains(&text(object, "/kind"));
        for object in objects.iter().filter(own) {
            let title = title(object);
            assert!(title.contains(chosen), "{title}");
            // Pods are called after these, and a host's name has 63 characters.
            let workload = ["DaemonSet", "Deployment"].contains(&text(object, "/kind"));
            assert!(!workload || text(object, "/metadata/name").len() <= 63, "{title}");
        }
    }
}
