//! What operators choose for themselves: names of registries, labels, annotations, sidecars' settings, classes.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::chart::{VERSIONS, chart, documents, helm, items, only, render, repository, text, title};
use crate::support::objects::{check, containers, unknown_fields};

fn container<'a>(workload: &'a Value, name: &str) -> &'a Value {
    containers(workload).find(|container| container["name"] == name).expect("a container of this name")
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    items(container, "/env")
        .iter()
        .find(|variable| variable["name"] == name)
        .map(|found| text(found, "/value"))
}

/// One value takes every image from a mirror; a name that is no registry's stays.
#[test]
fn one_value_rewrites_the_registry_of_every_image() {
    let sets = ["global.imageRegistry=mirror.example.com:5000/cache", "image.repository=team/driver"];
    let objects = render(VERSIONS[1], &sets);
    let mut found = Vec::new();
    for object in &objects {
        let pods = ["/spec/template/spec/containers", "/spec/containers"];
        for container in pods.iter().flat_map(|pointer| items(object, pointer)) {
            found.push(text(container, "/image").to_owned());
        }
    }
    let mirror = "mirror.example.com:5000/cache";
    for name in [
        "team/driver:0.1.0",
        "sig-storage/csi-node-driver-registrar:v2.17.0",
        "sig-storage/livenessprobe:v2.19.0",
        "sig-storage/csi-provisioner:v6.3.0",
    ] {
        assert!(found.contains(&format!("{mirror}/{name}")), "{name}: {found:?}");
    }
    assert!(found.len() >= 7 && found.iter().all(|image| image.starts_with(mirror)), "{found:?}");
}

#[test]
fn labels_and_annotations_are_the_operators() {
    let sets = [
        "commonLabels.team=storage",
        "annotations.reloader=daemonset",
        "controller.annotations.reloader=deployment",
        "podLabels.tier=node",
        "podAnnotations.kubectl\\.kubernetes\\.io/default-container=other",
        "storageClasses[0].name=models",
    ];
    let objects = render(VERSIONS[1], &sets);
    check(&objects, "labels");
    for object in &objects {
        assert_eq!(text(object, "/metadata/labels/team"), "storage", "{}", title(object));
    }
    for (kind, suffix, name) in
        [("DaemonSet", "-node", "daemonset"), ("Deployment", "-controller", "deployment")]
    {
        let workload = only(&objects, kind, suffix);
        assert_eq!(text(workload, "/metadata/annotations/reloader"), name);
        assert_eq!(text(workload, "/spec/template/metadata/labels/team"), "storage");
        assert_eq!(workload["spec"]["selector"]["matchLabels"].as_object().unwrap().len(), 3);
    }
    let pod = &only(&objects, "DaemonSet", "-node")["spec"]["template"]["metadata"];
    assert_eq!(pod["labels"]["tier"], "node");
    assert_eq!(pod["annotations"], json!({"kubectl.kubernetes.io/default-container": "other"}));
}

#[test]
fn sidecars_take_arguments_and_environment() {
    let sidecars = [
        ("DaemonSet", "nodeDriverRegistrar", "node-driver-registrar"),
        ("DaemonSet", "livenessProbe", "livenessprobe"),
        ("Deployment", "livenessProbe", "livenessprobe"),
        ("Deployment", "externalProvisioner", "external-provisioner"),
    ];
    for (kind, value, name) in sidecars {
        let (argument, env) = (
            format!("sidecars.{value}.extraArgs={{--kube-api-qps=9}}"),
            format!("sidecars.{value}.extraEnv[0].name=HTTPS_PROXY"),
        );
        let value = format!("sidecars.{value}.extraEnv[0].value=proxy");
        let objects = render(VERSIONS[1], &[&argument, &env, &value]);
        let container = container(only(&objects, kind, ""), name);
        assert!(items(container, "/args").contains(&json!("--kube-api-qps=9")), "{container}");
        assert_eq!(variable(container, "HTTPS_PROXY"), Some("proxy"), "{container}");
    }
}

/// The provisioner's client waits for ever for what an API server before 1.27 does not send. The tests' cluster has
/// no such setting of its own: what it needs, the chart has.
#[test]
fn old_api_servers_are_not_asked_for_bookmarks() {
    for (kubernetes, expected) in
        [("1.20.0", Some("false")), ("1.26.15", Some("false")), ("1.27.0", None), ("1.36.0", None)]
    {
        let objects = render(kubernetes, &[]);
        let provisioner = container(only(&objects, "Deployment", ""), "external-provisioner");
        assert_eq!(variable(provisioner, "KUBE_FEATURE_WatchListClient"), expected, "{kubernetes}");
    }
    let build = std::fs::read_to_string(repository().join("scripts/e2e/build.sh")).unwrap();
    assert!(
        !build.contains("KUBE_FEATURE"),
        "an image of the tests has a setting that users' images have not"
    );
}

#[test]
fn classes_are_made() {
    let sets = [
        "storageClasses[0].name=models",
        "storageClasses[0].parameters.image=registry.example.com/models:1",
        "storageClasses[1].name=lazy",
        "storageClasses[1].reclaimPolicy=Retain",
        "storageClasses[1].volumeBindingMode=WaitForFirstConsumer",
        "storageClasses[1].annotations.a=b",
    ];
    let objects = render(VERSIONS[0], &sets);
    check(&objects, "classes");
    let class = |name| only(&objects, "StorageClass", name);
    assert_eq!(class("models")["parameters"], json!({"image": "registry.example.com/models:1"}));
    assert_eq!(text(class("models"), "/provisioner"), "csi.composefs.dev");
    assert_eq!(text(class("models"), "/reclaimPolicy"), "Delete");
    assert_eq!(text(class("lazy"), "/volumeBindingMode"), "WaitForFirstConsumer");
    assert_eq!(text(class("lazy"), "/metadata/annotations/a"), "b");
    for object in &objects {
        assert_eq!(unknown_fields(object), Vec::<String>::new(), "{}", title(object));
    }
}

/// What the node plugin may mount, the controller must be able to resolve: it has the argument and the directory.
#[test]
fn the_controller_has_the_layouts() {
    let objects = render(VERSIONS[1], &["node.layoutDirs={/srv/images}"]);
    for kind in ["DaemonSet", "Deployment"] {
        let workload = only(&objects, kind, "");
        let driver = container(workload, "driver");
        assert!(items(driver, "/args").contains(&json!("--layout-dir=/srv/images")), "{driver}");
        let mount = json!({"name": "layouts-0", "mountPath": "/srv/images", "readOnly": true});
        assert!(items(driver, "/volumeMounts").contains(&mount), "{driver}");
        let volume = json!({"name": "layouts-0", "hostPath": {"path": "/srv/images", "type": "Directory"}});
        assert!(items(workload, "/spec/template/spec/volumes").contains(&volume), "{workload}");
    }
    // nonroot-v2 would refuse the pod.
    let objects = render(VERSIONS[1], &["node.layoutDirs={/srv/images}", "openshift.enabled=true"]);
    let controller = serde_json::to_string(only(&objects, "Deployment", "")).unwrap();
    assert!(!controller.contains("/srv/images"), "{controller}");
}

/// What the program links from, it sees, and no more than to read it; and it has the right to link across two mounts.
#[test]
fn the_plugin_sees_the_object_sources() {
    let objects = render(VERSIONS[1], &["node.objectSources={/sysroot/composefs,/srv/objects}"]);
    let workload = only(&objects, "DaemonSet", "");
    let driver = container(workload, "driver");
    let setting = json!({"name": "COMPOSEFS_CSI_OBJECT_SOURCE", "value": "/sysroot/composefs,/srv/objects"});
    assert!(items(driver, "/env").contains(&setting), "{driver}");
    let mount = json!({"name": "object-source-1", "mountPath": "/srv/objects", "readOnly": true});
    assert!(items(driver, "/volumeMounts").contains(&mount), "{driver}");
    assert!(
        items(driver, "/securityContext/capabilities/add").contains(&json!("DAC_READ_SEARCH")),
        "{driver}"
    );
    let controller = serde_json::to_string(only(&objects, "Deployment", "")).unwrap();
    assert!(!controller.contains("/srv/objects"), "{controller}");
}

/// A DaemonSet that tolerates everything would be put on virtual nodes, where nothing can be mounted.
#[test]
fn virtual_nodes_are_left_alone() {
    let objects = render(VERSIONS[0], &[]);
    let terms = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let [term] = items(only(&objects, "DaemonSet", ""), terms) else { panic!("one term") };
    let expected = json!({"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]});
    assert!(items(term, "/matchExpressions").contains(&expected), "{term}");
}

/// `helm test` runs a program from a volume of the driver, with no more rights than any pod. Plain manifests have no tests.
#[test]
fn helm_test_reads_a_volume() {
    let objects = render(VERSIONS[1], &["imagePullSecrets[0].name=pull"]);
    let pod = only(&objects, "Pod", "-test");
    assert_eq!(text(pod, "/metadata/annotations/helm.sh~1hook"), "test");
    let [container] = items(pod, "/spec/containers") else { panic!("one container") };
    let [volume] = items(pod, "/spec/volumes") else { panic!("one volume") };
    assert_eq!(container["image"], volume["csi"]["volumeAttributes"]["image"]);
    assert_eq!(text(volume, "/csi/nodePublishSecretRef/name"), "pull");
    let mount = text(container, "/volumeMounts/0/mountPath");
    let program = text(container, "/command/0");
    let inside = program.strip_prefix(mount).expect("a program of the volume");
    // Where the image has it.
    let dockerfile = std::fs::read_to_string(repository().join("Dockerfile")).unwrap();
    assert!(dockerfile.contains(&format!("ENTRYPOINT [\"{inside}\"]")), "{inside}");
    let other = render(VERSIONS[1], &["helmTest.image=registry.example.com/signed:1"]);
    let pod = only(&other, "Pod", "-test");
    assert_eq!(text(pod, "/spec/volumes/0/csi/volumeAttributes/image"), "registry.example.com/signed:1");
    assert_eq!(text(pod, "/spec/containers/0/command/0"), inside);
    let manifests = std::fs::read_to_string(repository().join("manifests/composefs-csi.yaml"));
    assert!(!manifests.unwrap().contains("kind: Pod\n"), "a test is no part of an installation");
}

/// A single image must not take the node's memory. The provisioner's need grows with the cluster, and has no limit.
#[test]
fn memory_is_limited() {
    let objects = render(VERSIONS[1], &[]);
    for kind in ["DaemonSet", "Deployment"] {
        for container in containers(only(&objects, kind, "")) {
            let limit = container.pointer("/resources/limits/memory");
            assert_eq!(limit.is_some(), container["name"] != "external-provisioner", "{container}");
        }
    }
}

/// The first pod of the notes has a mount that keeps what the driver set, where the cluster knows that word.
#[test]
fn the_notes_fit_the_release() {
    // helm shows notes only of a cluster's own release: here as part of an object of a copy of the chart.
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(chart()).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let chart = copy.path().join("composefs-csi");
    std::fs::rename(chart.join("templates/NOTES.txt"), chart.join("notes")).unwrap();
    std::fs::write(chart.join("templates/notes.yaml"), "notes: {{ tpl (.Files.Get \"notes\") . | toJson }}")
        .unwrap();
    for (kubernetes, known) in [("1.20.0", false), ("1.32.0", false), ("1.33.0", true)] {
        let show = ["--show-only", "templates/notes.yaml", "--kube-version", kubernetes];
        let output = helm(&[&["template", "mine", chart.to_str().unwrap()], &show[..]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let object = documents(&String::from_utf8(output.stdout).unwrap()).remove(0);
        let notes = text(&object, "/notes");
        assert_eq!(notes.contains("recursiveReadOnly: IfPossible"), known, "{kubernetes}: {notes}");
        assert!(notes.contains("helm test mine"), "{notes}");
        // What is to be typed is an object of Kubernetes.
        let (_, pod) = notes.split_once("<<POD\n").expect("a pod");
        let (pod, _) = pod.split_once("     POD").expect("its end");
        let pod = documents(pod).remove(0);
        assert_eq!(unknown_fields(&pod), Vec::<String>::new(), "{pod}");
    }
}
