//! Kills, restarts, collections and teardowns: what a pod has written is there as long as the volume is, and no longer.

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::Command;

use super::{MIB, layout, machine, names, publish, unpublish, used, writable};
use crate::support::archive::noise;
use crate::support::driver::mounts_below;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_outlives_the_plugin_and_its_collections() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let request = writable(&machine, "pod", &image, "8Mi");
    let target = publish(&plugin, request.clone()).await.unwrap();
    fs::write(target.join("data/small"), "changed").unwrap();
    let mut open = fs::File::create(target.join("open")).unwrap();
    // SIGKILL.
    drop(plugin);
    let plugin = machine.start().await;
    machine.run(&["prune"]);
    publish(&plugin, request.clone()).await.unwrap();
    open.write_all(b"still").unwrap();
    assert_eq!(fs::read(target.join("open")).unwrap(), b"still");
    assert_eq!(fs::read(target.join("data/small")).unwrap(), b"changed");
    fs::File::create("/proc/sys/vm/drop_caches").unwrap().write_all(b"3").unwrap();
    assert!(
        fs::read(target.join("data/big")).unwrap() == noise("writable", MIB as usize),
        "its objects are kept"
    );
    // The record is lost, as after a disk: kubelet asks again, and the volume is taken over as it is.
    let record =
        names(&machine.state().join("store/volumes")).into_iter().find(|name| name != "boot").unwrap();
    fs::remove_file(machine.state().join("store/volumes").join(record)).unwrap();
    machine.run(&["prune"]);
    publish(&plugin, request.clone()).await.unwrap();
    assert_eq!(fs::read(target.join("data/small")).unwrap(), b"changed");
    assert_eq!(mounts_below(&machine.path().join("kubelet/pods")).len(), 1);
    // With other attributes it is another volume.
    let other = writable(&machine, "pod", &image, "9Mi");
    assert_eq!(publish(&plugin, other).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    assert_eq!(
        publish(&plugin, machine.publish("pod", &image)).await.unwrap_err().code(),
        tonic::Code::AlreadyExists
    );

    // Gone while somebody has a file open, who goes on with that file.
    let mut reader = fs::File::open(target.join("data/big")).unwrap();
    unpublish(&plugin, &machine, "pod").await;
    machine.assert_nothing_published();
    open.write_all(b" here").unwrap();
    reader.rewind().unwrap();
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    assert!(text == noise("writable", MIB as usize));
    // The next pod of that name begins anew, beside what is still open.
    publish(&plugin, request).await.unwrap();
    assert_eq!(fs::read(target.join("data/small")).unwrap(), b"small");
    assert!(!target.join("open").exists());
    unpublish(&plugin, &machine, "pod").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_publish_leaves_is_removed_at_the_start() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    publish(&plugin, writable(&machine, "pod", &image, "8Mi")).await.unwrap();
    let digest = machine.run(&["inspect", &image])["image"].as_str().unwrap().to_owned();
    drop(plugin);
    // As between two steps: the upper and the overlay are attached, and the target does not show them.
    for suffix in ["upper", "writable"] {
        let place = machine.state().join("mounts").join(format!("{digest}.{suffix}"));
        fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&place).status().unwrap();
        assert!(mounted.success());
    }
    let plugin = machine.start().await;
    assert_eq!(names(&machine.state().join("mounts")), [""; 0]);
    // And a publish that was killed after its record: nothing is mounted, and the retry does it.
    let target = machine.target("pod");
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
    publish(&plugin, writable(&machine, "pod", &image, "8Mi")).await.unwrap();
    fs::write(target.join("new"), "new").unwrap();
    unpublish(&plugin, &machine, "pod").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_needs_no_state_directory() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let target =
        publish(&plugin, writable(&machine, "pod", &layout.reference("latest"), "8Mi")).await.unwrap();
    fs::write(target.join("new"), "new").unwrap();
    fs::rename(machine.state().join("store"), machine.path().join("aside")).unwrap();
    unpublish(&plugin, &machine, "pod").await;
    assert!(!target.exists());
    assert_eq!(machine.published(), [""; 0].map(std::path::PathBuf::from));
    fs::rename(machine.path().join("aside"), machine.state().join("store")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_have_two_hundred_uppers() {
    const PODS: u32 = 200;
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let name = |number| format!("pod-{number}");
    let calls = (0..PODS).map(|number| publish(&plugin, writable(&machine, &name(number), &image, "1Mi")));
    for answer in futures_util::future::join_all(calls).await {
        let target = answer.unwrap();
        fs::write(target.join("mine"), target.display().to_string()).unwrap();
    }
    machine.run(&["prune"]);
    let big = noise("writable", MIB as usize);
    for number in 0..PODS {
        let target = machine.target(&name(number));
        assert_eq!(fs::read_to_string(target.join("mine")).unwrap(), target.display().to_string());
        assert!(fs::read(target.join("data/big")).unwrap() == big);
    }
    assert_eq!(used(&plugin, &machine, "pod-0").await.0, 4096, "one small file");
    assert_eq!(machine.published().len(), PODS as usize);
    let calls = (0..PODS).map(|number| {
        let (plugin, machine) = (&plugin, &machine);
        async move { unpublish(plugin, machine, &name(number)).await }
    });
    futures_util::future::join_all(calls).await;
    machine.assert_nothing_published();
}
