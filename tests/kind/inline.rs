//! Inline volumes: the image in the pod's own manifest.

use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::images::{Files, noise, sha256};
use crate::node::INSPECTOR;
use crate::pods::{Reader, inline};

/// The pod reads what the image holds, cannot write, and its end leaves no volume behind.
pub async fn shows_the_image(cluster: &Cluster) {
    let blob = noise(1, 3_000_000);
    let files = Files::default().with("etc/motd", "from an image\n").with("data/blob", blob.clone());
    let (image, digest) = cluster.registries.open.push(&files, "inline:1");
    cluster.start(&Reader::new("inline", inline(json!({"image": image})))).await;
    assert_eq!(cluster.sh("inline", "cat /content/etc/motd"), "from an image");
    let sum = cluster.sh("inline", "sha256sum /content/data/blob");
    assert_eq!(sum.split_whitespace().next(), Some(sha256(&blob).as_str()));
    let refused = cluster.sh_fails("inline", "touch /content/etc/motd");
    assert!(refused.contains("Read-only file system"), "{refused}");

    // By digest, a part of it, and nothing of it executable.
    let pinned = format!("{}@{digest}", image.rsplit_once(':').expect("a tag").0);
    let mut part = inline(json!({"image": pinned, "path": "data", "noexec": "true"}));
    // The volume is read-only without that word. With it, all runtimes mount once more and forget the other options.
    part["csi"]["readOnly"] = json!(false);
    cluster.start(&Reader::new("inline-part", part)).await;
    assert!(cluster.sh_fails("inline-part", "touch /content/blob").contains("Read-only file system"));
    assert_eq!(cluster.sh("inline-part", "ls /content"), "blob");
    // What the driver promises is the node's mount; what of it a container gets is up to the node's runtime.
    cluster.inspect().await;
    let node = cluster.sh(INSPECTOR, "grep '/volumes/kubernetes.io~csi/content/mount ' /proc/1/mountinfo");
    let part = node.lines().find(|mount| has(mount, "noexec"));
    let part = part.unwrap_or_else(|| panic!("noexec is missing in {node}"));
    let container = cluster.sh("inline-part", "grep ' /content ' /proc/mounts");
    let promised = ["ro", "nosuid", "nodev"].map(|option| (part, option));
    let kept = cluster.release.options_in_container().iter().map(|option| (&*container, *option));
    for (options, option) in promised.into_iter().chain(kept) {
        assert!(has(options, option), "{option} is missing in {options}");
    }

    cluster.clear().await;
    no_volume(cluster).await;
}

/// Whether a line of a mount table has an option.
fn has(mount: &str, option: &str) -> bool {
    mount.split([' ', ',']).any(|word| word == option)
}

/// A wrong attribute and an image that does not exist are explained in the pod's Events.
pub async fn says_why_not(cluster: &Cluster) {
    let unknown = json!({"image": format!("{}/inline:1", cluster.registries.open.host), "colour": "red"});
    cluster.submit(&Reader::new("inline-unknown", inline(unknown))).await;
    let event = cluster.event("inline-unknown", "FailedMount").await;
    assert!(event.contains("colour") && event.contains("is not known"), "{event}");

    let absent = json!({"image": format!("{}/nothing/here:1", cluster.registries.open.host)});
    cluster.submit(&Reader::new("inline-absent", inline(absent))).await;
    cluster.event("inline-absent", "nothing/here").await;
}

/// The driver knows of no published volume.
pub async fn no_volume(cluster: &Cluster) {
    until("the end of all volumes", 60, async || {
        (cluster.metric("composefs_csi_published_volumes{").await == 0.0).then_some(())
    })
    .await;
}
