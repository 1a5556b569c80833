//! Rights: they follow the switches, and each says why.

use crate::support::chart::{VERSIONS, chart, only, render, text, title};

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

    // Prefetching has no right to Secrets: namespaces give them, one by one.
    assert_eq!(rules(&["prefetch.enabled=true"]), [cluster, node, lease]);
    let resources = |sets: &[&str]| {
        let objects = render(VERSIONS[1], sets);
        let role = only(&objects, "ClusterRole", "-node");
        role["rules"].as_array().unwrap().iter().map(|rule| rule["resources"][0].clone()).collect::<Vec<_>>()
    };
    let prefetching = ["imageprefetches", "nodeimagecaches", "nodeimagecaches/status", "nodes"];
    assert_eq!(resources(&["prefetch.enabled=true", "events.enabled=false"]), prefetching);

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
        // Those of `helm test` have no rights.
        if path.is_dir() {
            continue;
        }
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
