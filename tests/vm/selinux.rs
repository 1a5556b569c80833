//! What containers may do with volumes where SELinux is enforced, by a policy that has the rules of Fedora's and
//! container-selinux's that matter here (`selinux.cil`).
//!
//! The rows run in a process with the label of a privileged container, as the plugin does, and start programs with
//! those of other containers.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::mount::{
    KernelMounter, MountError, MountSpec, Mounter as _, SelinuxContext, UpperSpec,
};

use crate::guest::{LENGTH, Test, run_rows, whole};
use crate::support::mount::{Bench, Node, content};
use crate::support::pages::Mapping;

/// Every row, in order.
pub const ROWS: &[(&str, Test)] = &[
    ("under SELinux, containers of all categories read one mount of an image", shared),
    ("without a context no container reads it, and kubelet would have it relabelled", unlabelled),
    ("containers cannot write to it", read_only),
    ("a container writes to a volume that is writable", writable),
    ("containers run programs of a volume, with its dynamic linker and libraries", programs),
    ("a changed context makes a new mount, and leaves what is published alone", changed),
    ("where only the runtime may mount with that label, containers read by another", second_choice),
    ("a label that the policy does not know is refused, and said so", unknown),
];

const PRIVILEGED: &str = "system_u:system_r:spc_t:s0";
const RESTRICTED: &str = "system_u:system_r:restricted_t:s0";
const POD: &str = "system_u:system_r:container_t:s0:c1,c2";
const OTHER_POD: &str = "system_u:system_r:container_t:s0:c3,c4";
const EXPECTED: &str = "system_u:object_r:container_ro_file_t:s0";
const SECOND: &str = "system_u:object_r:container_file_t:s0";
/// What a hostPath below /var/lib is labelled, and with it a store that nobody labelled.
const HOST: &str = "system_u:object_r:var_lib_t:s0";
const ATTRIBUTE: &str = "security.selinux";

/// Loads the policy, enforces it, and runs the rows with the label of a privileged container.
pub fn enforce() {
    let policy = std::fs::read("/selinux/policy").unwrap();
    std::fs::write("/sys/fs/selinux/load", policy).expect("the kernel refuses the policy");
    label("/disk", HOST);
    std::fs::write("/sys/fs/selinux/enforce", "1").unwrap();
    let arguments = ["privileged", "--ignored", "--exact", "--nocapture"];
    let done = run_as(PRIVILEGED, &std::env::current_exe().unwrap(), &arguments);
    print!("{}", String::from_utf8_lossy(&done.stdout));
}

pub fn privileged() {
    run_rows(ROWS);
}

fn label(path: &str, label: &str) {
    rustix::fs::setxattr(path, ATTRIBUTE, label.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
}

fn label_of(path: &Path) -> String {
    let mut buffer = [0; 256];
    let length = rustix::fs::getxattr(path, ATTRIBUTE, &mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim_end_matches('\0').to_owned()
}

/// Which superblock it is of.
fn device(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().dev()
}

/// Runs a program with another label, which the thread io down to what it starts next.
fn run_as(label: &str, program: &Path, arguments: &[&str]) -> Output {
    let next = "/proc/thread-self/attr/exec";
    std::fs::write(next, label).unwrap();
    let output = Command::new(program).args(arguments).output();
    std::fs::write(next, "\n").unwrap();
    output.unwrap_or_else(|error| panic!("{} as {label}: {error}", program.display()))
}

fn read_as(label: &str, file: &Path) -> Result<Vec<u8>, String> {
    let done = run_as(label, Path::new("/bin/busybox"), &["cat", file.to_str().unwrap()]);
    if done.status.success() {
        Ok(done.stdout)
    } else {
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// A store with an image of one file, and a mounter.
fn prepare(name: &str, context: &SelinuxContext) -> (Bench, VerityDigest, KernelMounter) {
    let bench = Bench::new(Path::new("/disk"), name, true);
    let image = bench
        .image(&[("d/file", Node::File(content(80, LENGTH))), ("small", Node::File(b"inline".to_vec()))]);
    let mounter = KernelMounter::start_labelled(&bench.store(), &bench.state(), true, context).unwrap();
    (bench, image, mounter)
}

/// What stands in the mount table about a target.
fn options_of(target: &Path) -> String {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == target.to_str());
    line.expect("a mount").rsplit(' ').next().unwrap().to_owned()
}

fn shared() -> String {
    let (bench, image, mounter) = prepare("selinux", &SelinuxContext::Auto);
    assert_eq!(
        mounter.capabilities().selinux.context.as_deref(),
        Some(EXPECTED),
        "{}",
        mounter.capabilities()
    );
    let targets = [bench.target("a"), bench.target("b")];
    for (target, pod) in targets.iter().zip([POD, OTHER_POD]) {
        mounter.mount(&whole(image), target).unwrap();
        for path in ["", "d", "d/file", "small"] {
            assert_eq!(label_of(&target.join(path)), EXPECTED);
        }
        assert_eq!(read_as(pod, &target.join("d/file")), Ok(content(80, LENGTH)));
        assert_eq!(read_as(pod, &target.join("small")).as_deref(), Ok(&b"inline"[..]));
        assert!(!options_of(target).contains("seclabel"), "kubelet relabels mounts that show it");
    }
    let frames = |target: &PathBuf| {
        let file = std::fs::File::open(target.join("d/file")).unwrap();
        Mapping::new(file).unwrap().frames().unwrap()
    };
    assert_eq!(frames(&targets[0]), frames(&targets[1]), "one page cache");
    options_of(&targets[0])
}

fn unlabelled() -> String {
    let (bench, image, mounter) = prepare("selinux-none", &SelinuxContext::Policy);
    assert_eq!(mounter.capabilities().selinux.context, None);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let refused = read_as(POD, &target.join("d/file")).unwrap_err();
    assert!(refused.contains("Permission denied"), "{refused}");
    assert!(options_of(&target).contains("seclabel"));
    format!("{}: {}", label_of(&target), refused.trim())
}

fn read_only() -> String {
    let (bench, image, mounter) = prepare("selinux-write", &SelinuxContext::Auto);
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let (file, script) = (target.join("small"), r#"echo x >>"$0""#);
    let done = run_as(POD, Path::new("/bin/busybox"), &["sh", "-c", script, file.to_str().unwrap()]);
    assert!(!done.status.success());
    String::from_utf8_lossy(&done.stderr).trim().to_owned()
}

/// What the pod changes, and what it makes, of an image whose objects no container may write to.
fn writable() -> String {
    let (bench, image, mounter) = prepare("selinux-writable", &SelinuxContext::Auto);
    let target = bench.target("a");
    mounter
        .mount(
            &MountSpec { upper: Some(UpperSpec { bytes: 4 << 20, on_disk: false }), ..whole(image) },
            &target,
        )
        .unwrap();
    let script =
        r#"cd "$0" && cat d/file >/dev/null && echo x >>d/file && mv d e && echo new >new && cat e/file new"#;
    let done = run_as(POD, Path::new("/bin/busybox"), &["sh", "-c", script, target.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.stdout == [&content(80, LENGTH)[..], b"x\n", b"new\n"].concat());
    let labels = ["", "e/file", "new", "small"].map(|path| label_of(&target.join(path)));
    assert!(labels.iter().all(|label| *label == labels[0] && label != EXPECTED), "{labels:?}");
    assert!(!options_of(&target).contains("seclabel"), "kubelet relabels mounts that show it");
    mounter.unmount(&target).unwrap();
    labels[0].clone()
}

/// The dynamic linker protects what it has relocated (mprotect), which SELinux before Linux 7.0.4 (6.12.96 in its series) checks
/// against the object below: hence the objects' label, which is looked at, as newer kernels do not need it.
fn programs() -> String {
    let bench = Bench::new(Path::new("/disk"), "selinux-programs", true);
    let read = |path: &str| Node::File(std::fs::read(path).unwrap());
    let image = bench.image(&[
        ("ld.so", read("/lib64/ld-linux-x86-64.so.2")),
        ("libc.so.6", read("/lib/x86_64-linux-gnu/libc.so.6")),
        ("program", read("/selinux/program")),
    ]);
    let mounter = KernelMounter::start(&bench.store(), &bench.state(), true).unwrap();
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    let path = |name: &str| target.join(name).to_str().unwrap().to_owned();
    // By a shell of the container's: mounts without set-user-ID let no program change its label either.
    let command = format!("exec {} --library-path {} {}", path("ld.so"), path(""), path("program"));
    let done = run_as(POD, Path::new("/bin/busybox"), &["sh", "-c", &command]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // The second one came after the store was labelled.
    for object in [image, bench.put(&content(81, LENGTH))] {
        assert_eq!(label_of(&bench.object(&object)), EXPECTED);
    }
    String::new()
}

fn changed() -> String {
    let (bench, image, before) = prepare("selinux-changed", &SelinuxContext::Policy);
    let (old, new, newer) = (bench.target("a"), bench.target("b"), bench.target("c"));
    before.mount(&whole(image), &old).unwrap();
    let after = KernelMounter::start(&bench.store(), &bench.state(), true).unwrap();
    for target in [&new, &newer] {
        after.mount(&whole(image), target).unwrap();
        assert_eq!(read_as(POD, &target.join("d/file")), Ok(content(80, LENGTH)));
    }
    assert!(device(&new) == device(&newer) && device(&new) != device(&old));
    assert!(read_as(POD, &old.join("d/file")).is_err());
    for target in [&old, &new, &newer] {
        after.unmount(target).unwrap();
        after.release(&image).unwrap();
    }
    assert_eq!(crate::support::mount::mounts_below(&bench.root).len(), 1);
    String::new()
}

fn second_choice() -> String {
    let arguments = ["restricted", "--ignored", "--exact", "--nocapture"];
    let done = run_as(RESTRICTED, &std::env::current_exe().unwrap(), &arguments);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    String::new()
}

/// As [`RESTRICTED`]. Containers may write by this label: it is fit for a mount, which is read-only, not for the store.
pub fn restricted() {
    let (bench, image, mounter) = prepare("selinux-restricted", &SelinuxContext::Auto);
    assert_eq!(mounter.capabilities().selinux.context.as_deref(), Some(SECOND), "{}", mounter.capabilities());
    // The second one, as after a restart, knows the base mount of the first by its label, whatever the context was called.
    let restarted = KernelMounter::start(&bench.store(), &bench.state(), true).unwrap();
    let targets = [bench.target("a"), bench.target("b")];
    for (mounter, target) in [mounter, restarted].iter().zip(&targets) {
        mounter.mount(&whole(image), target).unwrap();
        assert_eq!(read_as(POD, &target.join("d/file")), Ok(content(80, LENGTH)));
        assert_eq!(label_of(target), "system_u:object_r:local_t:s0", "the policy's name for it");
        assert!(!options_of(target).contains("seclabel"));
    }
    assert_eq!(device(&targets[0]), device(&targets[1]), "one superblock");
    assert_eq!(label_of(&bench.object(&image)), HOST);
}

fn unknown() -> String {
    let bench = Bench::new(Path::new("/disk"), "selinux-unknown", true);
    let context = SelinuxContext::Label("system_u:object_r:nonsense_t:s0".into());
    let error = KernelMounter::start_labelled(&bench.store(), &bench.state(), true, &context).unwrap_err();
    assert!(matches!(error, MountError::Label { .. }), "{error}");
    error.to_string()
}
