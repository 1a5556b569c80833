//! Values that are right one by one and wrong together: each is refused when the chart is rendered, by a message that
//! begins with the value to change. Rendered, they would give pods that do not start, or half a release.

use crate::support::chart::{VERSIONS, render, render_command, try_render};
use crate::support::objects::check;

/// Values, and what the message says.
const REFUSED: [(&[&str], &str); 39] = [
    // the program refuses its arguments
    (&["node.gc.highPercent=70"], "node.gc.lowPercent (80) is above node.gc.highPercent (70)"),
    (
        &["node.extraArgs={--pull-wait=20}"],
        "node.extraArgs has --pull-wait, which the chart gives itself (--pull-wait=110), and the program takes it once",
    ),
    (&["node.extraArgs={--max-layers=9,--max-layers=8}"], "node.extraArgs has --max-layers twice"),
    (
        &["node.extraArgs={--state-dir=/srv}"],
        "node.extraArgs has --state-dir, which the chart sets itself (/var/lib/composefs-csi)",
    ),
    (&["node.extraArgs={--gc-high=90}"], "node.extraArgs has --gc-high, which the chart sets itself (85)"),
    (&["node.extraArgs={--node-id=a}"], "node.extraArgs has --node-id, which the chart sets itself"),
    (
        &["node.extraArgs={--insecure-registries-file=/a}"],
        "node.extraArgs has --insecure-registries-file, which the chart sets itself",
    ),
    (
        &["controller.extraArgs={--driver-name=a}"],
        "controller.extraArgs has --driver-name, which the chart gives itself (--driver-name=csi.composefs.dev)",
    ),
    (
        &["sidecars.externalProvisioner.extraArgs={--timeout=9s}"],
        "sidecars.externalProvisioner.extraArgs has --timeout, which the chart gives itself (--timeout=60s)",
    ),
    (
        &["sidecars.livenessProbe.extraArgs={--http-endpoint=:1}"],
        "sidecars.livenessProbe.extraArgs has --http-endpoint",
    ),
    (
        &["sidecars.nodeDriverRegistrar.extraArgs={--csi-address=/a}"],
        "nodeDriverRegistrar.extraArgs has --csi",
    ),
    (
        &["registries.credentialHelperDir=/opt/helpers"],
        "registries.credentialHelperDir needs registries.authSecret",
    ),
    (
        &["credentialProviders.binDir=/opt/bin"],
        "credentialProviders.configFile and credentialProviders.binDir belong",
    ),
    (
        &["resources.limits.memory=1Gi"],
        "resources.limits.memory (1Gi) leaves no room beside node.buildMemoryMiB (1024)",
    ),
    // the containers' ports, sockets and accounts
    (&["metrics.port=9808"], "metrics.port and sidecars.livenessProbe.port are both 9808"),
    (
        &[
            "kubeletDir=/var/snap/microk8s/common/var/lib/kubelet",
            "driverName=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
        ],
        "driverName is too long for this kubeletDir: the socket",
    ),
    (
        &["serviceAccount.node.name=a", "serviceAccount.controller.name=a"],
        "serviceAccount.node.name and serviceAccount.controller.name are both a",
    ),
    (&["nodeSelector.kubernetes\\.io/os=windows"], "nodeSelector has kubernetes.io/os: windows"),
    // directories over each other
    (
        &["stateDir=/var/lib/kubelet/pods"],
        "stateDir (/var/lib/kubelet/pods) and kubelet's /var/lib/kubelet/pods must",
    ),
    (&["stateDir=/var/lib/kubelet/pods/images"], "stateDir (/var/lib/kubelet/pods/images) and kubelet's"),
    (
        &["stateDir=/var/lib/kubelet"],
        "stateDir (/var/lib/kubelet) and kubelet's /var/lib/kubelet/pods must not be",
    ),
    (&["kubeletDir=/var/lib/composefs-csi/kubelet"], "stateDir (/var/lib/composefs-csi) and kubelet's"),
    (&["stateDir=/var/lib/kubelet/plugins/images"], "kubelet's /var/lib/kubelet/plugins must not be"),
    (&["node.keyDir=/var/lib/composefs-csi"], "node.keyDir is stateDir"),
    (
        &["node.keyDir=/var/lib/composefs-csi/store/a"],
        "node.keyDir (/var/lib/composefs-csi/store/a) is inside the store",
    ),
    (&["node.layoutDirs={/srv,/opt}", "policy.verifierDir=/opt"], "/opt is wanted for two volumes"),
    (&["node.layoutDirs={/usr}"], "/usr would hide /usr/bin of the driver's container"),
    (&["policy.verifierDir=/usr/bin"], "/usr/bin would hide /usr/bin of the driver's container"),
    (&["stateDir=/etc"], "/etc would hide /etc/composefs-csi"),
    (&["node.layoutDirs={/csi}"], "/csi would hide /csi"),
    // lists that are joined
    (
        &["extraEnv[0].name=COMPOSEFS_CSI_ACCESS_TTL"],
        "extraEnv has COMPOSEFS_CSI_ACCESS_TTL, which the chart sets itself",
    ),
    (&["extraEnv[0].name=NODE_ID"], "extraEnv has NODE_ID, which the chart sets itself"),
    (&["extraEnv[0].name=A", "extraEnv[1].name=A"], "extraEnv has A, twice: keep one"),
    (
        &["sidecars.externalProvisioner.extraEnv[0].name=NAMESPACE"],
        "externalProvisioner.extraEnv has NAMESPACE",
    ),
    (&["node.extraVolumes[0].name=state"], "node.extraVolumes has state, which the chart sets itself"),
    (
        &["node.extraVolumeMounts[0].name=a", "node.extraVolumeMounts[0].mountPath=/a"],
        "node.extraVolumeMounts names the volume a, which node.extraVolumes does not have",
    ),
    // objects that nobody would serve, or twice
    (&["storageClasses[0].name=a", "controller.enabled=false"], "storageClasses needs controller.enabled"),
    (&["prefetch.enabled=true", "controller.enabled=false"], "prefetch.enabled needs controller.enabled"),
    (
        &["metrics.podMonitor.enabled=true", "metrics.serviceMonitor.enabled=true"],
        "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true",
    ),
];

#[test]
fn what_would_render_and_not_start_is_refused() {
    for (sets, message) in REFUSED {
        let output = try_render(VERSIONS[1], sets);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{sets:?} was accepted");
        assert!(said.contains(message), "{sets:?} should say {message:?}: {said}");
    }
}

/// Labels by which selectors and helm find objects are the chart's, wherever an operator may give labels.
#[test]
fn nobody_takes_the_labels_of_selectors() {
    let places = [
        "commonLabels",
        "podLabels",
        "controller.podLabels",
        "metrics.podMonitor.labels",
        "metrics.serviceMonitor.labels",
        "metrics.prometheusRule.labels",
        "grafanaDashboard.labels",
    ];
    for place in places {
        for label in ["app.kubernetes.io/name", "app.kubernetes.io/component", "helm.sh/chart"] {
            let set = format!("{place}={{\"{label}\": \"mine\"}}");
            let output = render_command(VERSIONS[1], &["--set-json", &set]);
            let said = String::from_utf8_lossy(&output.stderr);
            let message = format!("{place} has {label}, which the chart sets itself");
            assert!(!output.status.success() && said.contains(&message), "{set}: {said}");
        }
    }
}

/// What is near to a mistake and none.
#[test]
fn what_works_is_not_refused() {
    let fine: [&[&str]; 9] = [
        &["node.gc.highPercent=80"],
        &["node.extraArgs={--layout-dir=/srv/a,--layout-dir=/srv/b,--max-layers=9}"],
        &["registries.insecure={a:80}", "node.extraArgs={--registry-ca=/a,--insecure-registry=b:80}"],
        &["stateDir=/var/lib/kubelet-images", "node.layoutDirs={/var/lib/composefs-csi}"],
        &["stateDir=/var/lib/kubelet/composefs-csi"],
        &["node.keyDir=/var/lib/composefs-csi/keys"],
        &["node.keyDir=/var/lib/composefs-csi/storeroom"],
        &[
            "nodeSelector.kubernetes\\.io/os=linux",
            "podAnnotations.kubectl\\.kubernetes\\.io/default-container=other",
        ],
        &[
            "node.extraVolumes[0].name=certificates",
            "node.extraVolumes[0].hostPath.path=/etc/ssl/certs",
            "node.extraVolumeMounts[0].name=certificates",
            "node.extraVolumeMounts[0].mountPath=/etc/ssl/certs",
        ],
    ];
    for sets in fine {
        check(&render(VERSIONS[1], sets), &format!("{sets:?}"));
    }
}
