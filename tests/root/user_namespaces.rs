//! Volumes of pods with `hostUsers: false`: kubelet's part and the runtime's are played by `support/pod_users.rs`; real
//! runtimes are in `tools/runtimes.rs`. Needs root.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::{NodeGetVolumeStatsRequest, NodePublishVolumeRequest};
use rustix::io::Errno;
use tonic::{Code, Status};

use crate::support::archive::noise;
use crate::support::driver::{Machine, Plugin, mounts_below, with_the_charts_rights};
use crate::support::images::{Layout, layout_from_dirs};
use crate::support::pages::Mapping;
use crate::support::pod_users::{idmap_as_runtimes_do, write_users};

const FIRST: u32 = 131_072;

/// Files, directories and links of root's and others, some of them secret.
fn layout() -> Layout {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("usr/share")).unwrap();
    fs::create_dir(path("secret")).unwrap();
    fs::write(path("usr/share/big"), noise("user namespaces", 1 << 20)).unwrap();
    fs::write(path("secret/key"), noise("key", 9000)).unwrap();
    fs::write(path("file"), "text").unwrap();
    fs::write(path("of-1000"), "text").unwrap();
    fs::write(path("of-nobody-there"), "text").unwrap();
    fs::write(path("set"), "text").unwrap();
    symlink("usr/share/big", path("link")).unwrap();
    for (name, mode) in
        [("secret", 0o700), ("secret/key", 0o600), ("", 0o1775), ("file", 0o644), ("set", 0o4755)]
    {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    chown(path("of-1000"), Some(1000), Some(1001)).unwrap();
    chown(path("of-nobody-there"), Some(70_000), Some(70_000)).unwrap();
    chown(path(""), Some(7), Some(8)).unwrap();
    lchown(path("link"), Some(1000), Some(1000)).unwrap();
    layout_from_dirs(&[root.path()])
}

fn machine(layout: &Layout) -> Machine {
    Machine::new(&[&format!("--layout-dir={}", layout.path().display())])
}

async fn publish(plugin: &Plugin, request: NodePublishVolumeRequest) -> Result<(), Status> {
    plugin.node.clone().node_publish_volume(request).await.map(drop)
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

fn pod(machine: &Machine, name: &str) -> PathBuf {
    machine.path().join("kubelet/pods").join(name)
}

/// Starts containers as kubelet does, until one starts.
fn start_container(machine: &Machine, name: &str, first: u32) -> std::os::fd::OwnedFd {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match idmap_as_runtimes_do(&machine.target(name), first) {
            Ok(tree) => return tree,
            Err(errno) => assert_eq!(errno, Errno::INVAL, "an overlay"),
        }
        assert!(Instant::now() < deadline, "no container starts");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.uid(), stat.gid())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_sees_its_own_owners_and_shares_the_pages() {
    let layout = layout();
    let machine = machine(&layout);
    // With what the plugin's container has, and no more.
    let plugin = machine.start_by(&with_the_charts_rights(&[])).await;
    for name in ["with", "without"] {
        publish(&plugin, machine.publish(name, &layout.reference("latest"))).await.unwrap();
    }
    assert_eq!(idmap_as_runtimes_do(&machine.target("with"), FIRST).unwrap_err(), Errno::INVAL);
    write_users(&pod(&machine, "with"), FIRST);
    let tree = start_container(&machine, "with", FIRST);
    let inside = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));

    let nobody = 65_534;
    for (name, uid, gid, mode) in [
        ("", 7, 8, 0o1775),
        ("usr", 0, 0, 0o755),
        ("usr/share/big", 0, 0, 0o644),
        ("secret", 0, 0, 0o700),
        ("secret/key", 0, 0, 0o600),
        ("of-1000", 1000, 1001, 0o644),
        ("link", 1000, 1000, 0o777),
    ] {
        let stat = fs::symlink_metadata(inside.join(name)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (FIRST + uid, FIRST + gid), "{name:?}");
        assert_eq!(stat.mode() & 0o7777, mode, "{name:?}");
        let plain = fs::symlink_metadata(machine.target("without").join(name)).unwrap();
        assert_eq!((plain.uid(), plain.gid(), plain.mode()), (uid, gid, stat.mode()), "{name:?}");
        assert_eq!(plain.mtime(), stat.mtime(), "{name:?}");
    }
    assert_eq!(owner(&inside.join("of-nobody-there")), (nobody, nobody), "an id that the pod does not have");
    assert_eq!(fs::read_link(inside.join("link")).unwrap(), Path::new("usr/share/big"));
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&inside), names(&machine.target("without")));
    // Not by whom it likes: nothing is written.
    for name in ["new", "usr/new"] {
        let error = File::create(inside.join(name)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{name}");
    }
    let frames = |path: PathBuf| Mapping::new(File::open(path).unwrap()).unwrap();
    let (own, others) =
        (frames(inside.join("usr/share/big")), frames(machine.target("without").join("usr/share/big")));
    own.pin().unwrap();
    assert_eq!(own.frames().unwrap(), others.frames().unwrap(), "the same pages");
    drop((own, tree));

    let stats = NodeGetVolumeStatsRequest {
        volume_id: "csi-with".to_owned(),
        volume_path: machine.target("with").display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let found = plugin.node.clone().node_get_volume_stats(stats).await.unwrap().into_inner();
    let condition = found.volume_condition.unwrap();
    assert!(!condition.abnormal, "{condition:?}");
    publish(&plugin, machine.publish("with", &layout.reference("latest"))).await.unwrap();
    unpublish(&plugin, &machine, "with").await;
    assert!(machine.target("without").join("file").exists());
    unpublish(&plugin, &machine, "without").await;
    machine.assert_nothing_published();
    assert!(machine.state().join("mounts").read_dir().unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_at_any_time_brings_the_pod_its_owners() {
    let layout = layout();
    let machine = machine(&layout);
    let mut plugin = machine.start().await;
    publish(&plugin, machine.publish("early", &layout.reference("latest"))).await.unwrap();
    publish(&plugin, machine.publish("late", &layout.reference("latest"))).await.unwrap();
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    // While nobody watches.
    write_users(&pod(&machine, "early"), FIRST);
    let mut plugin = machine.start().await;
    drop(start_container(&machine, "early", FIRST));
    // And after the restart it is watched again.
    write_users(&pod(&machine, "late"), 2 * FIRST);
    drop(start_container(&machine, "late", 2 * FIRST));
    assert_eq!(owner(&machine.target("late").join("file")), (2 * FIRST, 2 * FIRST));
    // What a process leaves that is killed while it puts one together.
    let image = fs::read_dir(machine.state().join("mounts")).unwrap().next().unwrap().unwrap().file_name();
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    for suffix in ["top", "mapped"] {
        let left = machine.state().join("mounts").join(format!("{}.{suffix}", image.display()));
        fs::create_dir(&left).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &left, "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
        fs::create_dir(left.join("usr")).unwrap();
        rustix::mount::mount("tmpfs", left.join("usr"), "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
    }
    let before = mounts_below(&pod(&machine, "early")).len();
    let plugin = machine.start().await;
    let left = mounts_below(&machine.state().join("mounts/"));
    assert_eq!(left.len(), 1, "only the base mount: {left:?}");
    publish(&plugin, machine.publish("early", &layout.reference("latest"))).await.unwrap();
    assert_eq!(mounts_below(&pod(&machine, "early")).len(), before, "nothing twice");
    drop(start_container(&machine, "early", FIRST));
    unpublish(&plugin, &machine, "early").await;
    unpublish(&plugin, &machine, "late").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_users_are_known_is_published_for_them_or_told_why_not() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    // As after a reboot of the node: the pod keeps its users.
    write_users(&pod(&machine, "known"), FIRST);
    let mut request = machine.publish("known", &layout.reference("latest"));
    request.volume_context.insert("path".to_owned(), "usr".to_owned());
    request.volume_context.insert("noexec".to_owned(), "true".to_owned());
    publish(&plugin, request.clone()).await.unwrap();
    let tree = idmap_as_runtimes_do(&machine.target("known"), FIRST).unwrap();
    let inside = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    assert_eq!(fs::read(inside.join("share/big")).unwrap(), noise("user namespaces", 1 << 20));
    let flags = rustix::fs::statvfs(machine.target("known").join("share")).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC), "{flags:?}");
    drop(tree);
    publish(&plugin, request).await.unwrap();

    fs::create_dir_all(pod(&machine, "odd")).unwrap();
    fs::write(pod(&machine, "odd").join("userns"), r#"{"uidMappings":[],"gidMappings":[]}"#).unwrap();
    let request = machine.publish("odd", &layout.reference("latest"));
    for _ in 0..2 {
        let refused = publish(&plugin, request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("there is not one mapping of users"), "{refused}");
    }
    write_users(&pod(&machine, "odd"), 3 * FIRST);
    publish(&plugin, request).await.unwrap();
    drop(idmap_as_runtimes_do(&machine.target("odd"), 3 * FIRST).unwrap());
    for name in ["known", "odd"] {
        unpublish(&plugin, &machine, name).await;
    }
    machine.assert_nothing_published();
}

/// An image whose root has this many files, and one that has the name under which a directory is mounted whole.
fn wide(files: usize) -> Layout {
    let root = tempfile::tempdir().unwrap();
    for number in 0..files {
        fs::write(root.path().join(format!("f{number}")), number.to_string()).unwrap();
    }
    fs::write(root.path().join(".composefs"), "the image's own").unwrap();
    symlink("f1", root.path().join("link")).unwrap();
    layout_from_dirs(&[root.path()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_with_many_entries_takes_one_mount() {
    let (some, most) = (wide(1000), wide(5000));
    let machine = Machine::new(&[
        &format!("--layout-dir={}", some.path().display()),
        &format!("--layout-dir={}", most.path().display()),
    ]);
    let plugin = machine.start().await;
    write_users(&pod(&machine, "some"), FIRST);
    publish(&plugin, machine.publish("some", &some.reference("latest"))).await.unwrap();
    let tree = idmap_as_runtimes_do(&machine.target("some"), FIRST).unwrap();
    let inside = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    for number in [0, 1, 999] {
        let file = inside.join(format!("f{number}"));
        assert_eq!(fs::read_to_string(&file).unwrap(), number.to_string());
        assert_eq!(fs::metadata(&file).unwrap().uid(), FIRST);
    }
    assert_eq!(fs::read_to_string(inside.join(".composefs")).unwrap(), "the image's own");
    assert_eq!(fs::read_to_string(inside.join("link")).unwrap(), "1");
    drop(tree);
    assert_eq!(mounts_below(&pod(&machine, "some")).len(), 3, "what was there, the top, the whole directory");

    write_users(&pod(&machine, "most"), FIRST);
    let refused = publish(&plugin, machine.publish("most", &most.reference("latest"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("more than 4096 entries"), "{refused}");
    for name in ["some", "most"] {
        unpublish(&plugin, &machine, name).await;
    }
    machine.assert_nothing_published();
    assert!(mounts_below(&machine.state().join("mounts/")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_at_once_some_of_which_end_meanwhile() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let names: Vec<String> = (0..24).map(|number| format!("pod-{number}")).collect();
    let first = |number: usize| FIRST + 65_536 * u32::try_from(number).unwrap();
    let mut all = tokio::task::JoinSet::new();
    for name in &names {
        let (node, request) = (plugin.node.clone(), machine.publish(name, &layout.reference("latest")));
        all.spawn(async move { node.clone().node_publish_volume(request).await.unwrap() });
    }
    all.join_all().await;
    for (number, name) in names.iter().enumerate() {
        write_users(&pod(&machine, name), first(number));
    }
    // Every second one ends at once, mapped or not.
    for name in names.iter().step_by(2) {
        unpublish(&plugin, &machine, name).await;
    }
    for (number, name) in names.iter().enumerate().skip(1).step_by(2) {
        drop(start_container(&machine, name, first(number)));
        let uid = first(number);
        assert_eq!(owner(&machine.target(name).join("secret/key")), (uid, uid), "{name}");
        unpublish(&plugin, &machine, name).await;
    }
    machine.assert_nothing_published();
}

/// Kernel memory: slab and per-cpu memory, in KiB.
fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let fields = text.lines().filter(|line| line.starts_with("Slab:") || line.starts_with("Percpu:"));
    fields.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

fn walk(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().flatten().fold(0, |count, entry| {
        let kind = entry.metadata().unwrap();
        count + 1 + if kind.is_dir() { walk(&entry.path()) } else { 0 }
    })
}

/// Figures for docs/user-namespaces.md: what such a pod costs beside an ordinary one. They are of the whole machine.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures of a machine that does nothing else"]
async fn what_a_pod_costs() {
    const PODS: u32 = 50;
    let root = tempfile::tempdir().unwrap();
    for directory in 0..20 {
        for number in 0..500 {
            let path = root.path().join(format!("d{directory}/e{}", number / 50));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(format!("f{number}")), format!("{directory} {number} {}", "x".repeat(200)))
                .unwrap();
        }
    }
    let layout = layout_from_dirs(&[root.path()]);
    let machine = machine(&layout);
    let plugin = machine.start().await;
    publish(&plugin, machine.publish("first", &layout.reference("latest"))).await.unwrap();
    let files = walk(&machine.target("first"));
    let first = |number: u32| FIRST + 65_536 * number;
    for with in [false, true] {
        let before = kernel_memory();
        let (mut times, name) = (Vec::new(), |number| format!("{with}-{number}"));
        for number in 0..PODS {
            if with {
                write_users(&pod(&machine, &name(number)), first(number));
            }
            let begun = Instant::now();
            publish(&plugin, machine.publish(&name(number), &layout.reference("latest"))).await.unwrap();
            times.push(begun.elapsed());
        }
        times.sort();
        let published = kernel_memory();
        (0..5).for_each(|number| assert_eq!(walk(&machine.target(&name(number))), files));
        let walked = kernel_memory();
        println!(
            "user namespace {with}: publish median {:?}, p99 {:?}; {} KiB a pod; {} KiB more where a pod has looked at \
             {files} files",
            times[times.len() / 2],
            times[times.len() - 1],
            published.saturating_sub(before) / u64::from(PODS),
            walked.saturating_sub(published) / 5,
        );
        for number in 0..PODS {
            unpublish(&plugin, &machine, &name(number)).await;
        }
    }
    unpublish(&plugin, &machine, "first").await;
}

/// Several images in one volume, of one of which only some files are taken, and a kill -9 before kubelet has chosen ids.
#[tokio::test(flavor = "multi_thread")]
async fn many_images_in_a_volume_have_the_pods_owners_too() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let mut request = machine.publish("with", "");
    request.volume_context.remove("image");
    let list = serde_json::json!([
        {"image": image, "at": "whole"},
        {"image": image, "at": "part", "include": "secret/*"},
    ]);
    request.volume_context.insert("images".to_owned(), list.to_string());
    publish(&plugin, request).await.unwrap();
    drop(plugin);
    write_users(&pod(&machine, "with"), FIRST);
    let plugin = machine.start().await;
    machine.run(&["prune"]);
    let tree = start_container(&machine, "with", FIRST);
    let inside = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    for key in ["whole/secret/key", "part/secret/key"] {
        assert_eq!(owner(&inside.join(key)), (FIRST, FIRST), "{key}");
        assert!(fs::read(inside.join(key)).unwrap() == noise("key", 9000), "{key}");
    }
    assert_eq!(owner(&inside.join("whole/of-1000")), (FIRST + 1000, FIRST + 1001));
    assert!(!inside.join("part/file").exists());
    drop(tree);
    unpublish(&plugin, &machine, "with").await;
    machine.assert_nothing_published();
    assert_eq!(mounts_below(&machine.target("with")), Vec::<PathBuf>::new());
}
