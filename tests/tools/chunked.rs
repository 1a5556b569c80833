//! zstd:chunked layers as skopeo writes them: two versions of a tree with everything that a tar can hold. The second is
//! put together from the first, and is the image of a whole pull. Needs skopeo of Debian sid; bookworm's writes layers
//! whose tar is not that of the DiffID, and those are refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::archive::noise;
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout, tar_of};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::{debian, installed};

/// A tree of some 400 files: small and large, with holes, links, long names, attributes, in directories.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("usr/share/a b/ü")).unwrap();
    for number in 0..300 {
        let size = 40 + number * 97;
        fs::write(root.join(format!("usr/share/{number}")), noise(&number.to_string(), size)).unwrap();
    }
    for number in 0..100 {
        fs::write(root.join(format!("usr/share/a b/ü/{number}")), format!("{number}\n")).unwrap();
    }
    fs::write(root.join("large"), noise("large", 6 << 20)).unwrap();
    fs::write(root.join("zeros"), vec![0; 1 << 20]).unwrap();
    fs::write(root.join("holes"), [noise("1", 5000), vec![0; 900_000], noise("2", 5000)].concat()).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("n".repeat(200)), noise("long", 3000)).unwrap();
    fs::hard_link(root.join("large"), root.join("same")).unwrap();
    symlink("large", root.join("link")).unwrap();
    fs::set_permissions(root.join("usr/share/1"), fs::Permissions::from_mode(0o4755)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("usr/share/2"), "user.colour", b"blue\0\xff", flags).unwrap();
}

/// What the second version changes.
fn change(root: &Path) {
    let mut large = fs::read(root.join("large")).unwrap();
    large[3 << 20] ^= 0xff;
    // Bytes that are put in move all that is behind them.
    large.splice(1 << 20..1 << 20, *b"fourteen bytes");
    fs::remove_file(root.join("same")).unwrap();
    fs::write(root.join("large"), large).unwrap();
    fs::rename(root.join("usr/share/200"), root.join("usr/share/renamed")).unwrap();
    fs::remove_file(root.join("usr/share/100")).unwrap();
    fs::write(root.join("usr/share/new"), noise("new", 50_000)).unwrap();
    fs::write(root.join("usr/share/a b/ü/7"), b"other").unwrap();
}

fn layout(root: &Path) -> Layout {
    // Without the sparse entries of `tar_of`, which this format does not describe.
    let mut tar = Command::new(installed("tar"));
    tar.args([
        "--create",
        "--format=pax",
        "--sort=name",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
    ]);
    Layout::of(&Image::new(vec![run(tar.arg("-C").arg(root).arg("."))]))
}

fn push(skopeo: &Path, registry: &Registry, layout: &Layout, name: &str) {
    let mut command = Command::new(skopeo);
    command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
    command.arg("--dest-compress-format=zstd:chunked").arg(layout.reference("latest"));
    run(command.arg(format!("docker://{}/{name}", registry.host())));
}

fn machine(proxy: &Proxy, extra: &[&str]) -> Machine {
    let host = proxy.address.to_string();
    Machine::new(&[&["--insecure-registry", &host], extra].concat())
}

/// Pulls, and returns what was pulled and how much came over the wire for it.
fn pull(machine: &Machine, proxy: &Proxy, name: &str) -> (serde_json::Value, u64) {
    let before = proxy.passed();
    let pulled = machine.run(&["pull", &format!("{}/{name}", proxy.address)]);
    (pulled, proxy.passed() - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_version_of_a_real_image_costs_its_changes() {
    let (registry, skopeo) = (Registry::start(Options::default()), debian("containers", "skopeo"));
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    push(&skopeo, &registry, &layout(root.path()), "app:1");
    change(root.path());
    push(&skopeo, &registry, &layout(root.path()), "app:2");
    let proxy = Proxy::start(&registry.host()).await;
    let (whole, cost_of_all) = pull(&machine(&proxy, &["--partial-pulls=none"]), &proxy, "app:2");
    let node = machine(&proxy, &[]);
    pull(&node, &proxy, "app:1");
    let (parts, cost) = pull(&node, &proxy, "app:2");
    assert_eq!(parts["image"], whole["image"]);
    assert!(parts["here_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{parts}");
    // The chunks around two changes of 6 MiB, one new file, tables, and the heads of the answers.
    assert!(cost < 700_000 && cost < cost_of_all / 10, "{cost} of {cost_of_all}");
    let manifests = std::process::Command::new(&skopeo)
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{}/app:2", registry.host()))
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&manifests.stdout).contains("zstd-chunked"),
        "skopeo has written another format"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_utf8_come_whole() {
    use std::os::unix::ffi::OsStrExt as _;
    let (registry, skopeo) = (Registry::start(Options::default()), debian("containers", "skopeo"));
    let proxy = Proxy::start(&registry.host()).await;
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    push(&skopeo, &registry, &layout(root.path()), "base:1");
    let odd = root.path().join(std::ffi::OsStr::from_bytes(b"odd \xff name"));
    fs::write(odd, noise("odd", 1000)).unwrap();
    push(&skopeo, &registry, &layout(root.path()), "odd:1");
    let node = machine(&proxy, &[]);
    pull(&node, &proxy, "base:1");
    let (whole, _) = pull(&machine(&proxy, &["--partial-pulls=none"]), &proxy, "odd:1");
    let (pulled, cost) = pull(&node, &proxy, "odd:1");
    assert_eq!(pulled["image"], whole["image"]);
    assert!(cost > 6 << 20, "{cost} bytes: it came in parts");
}

/// skopeo reads them as the files that they stand for, and writes their headers as they were: the archive in the layer is
/// none. However it is pulled, it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn sparse_entries_are_written_wrong_and_refused() {
    let (registry, skopeo) = (Registry::start(Options::default()), debian("containers", "skopeo"));
    let proxy = Proxy::start(&registry.host()).await;
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    push(&skopeo, &registry, &layout(root.path()), "base:1");
    fs::File::create(root.path().join("sparse")).unwrap().set_len(3 << 20).unwrap();
    push(&skopeo, &registry, &Layout::of(&Image::new(vec![tar_of(root.path())])), "sparse:1");
    let node = machine(&proxy, &[]);
    pull(&node, &proxy, "base:1");
    for setting in ["own", "none"] {
        let image = format!("{}/sparse:1", proxy.address);
        let output = node.command(&["pull", &image, "--partial-pulls", setting]).output().unwrap();
        assert!(!output.status.success(), "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_skopeo_writes_what_is_refused() {
    let (registry, skopeo) = (Registry::start(Options::default()), installed("skopeo"));
    let said = run(Command::new(&skopeo).arg("--version"));
    assert!(String::from_utf8_lossy(&said).contains(" 1.9."), "bookworm's skopeo is meant");
    let proxy = Proxy::start(&registry.host()).await;
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    push(&skopeo, &registry, &layout(root.path()), "old:1");
    let node = machine(&proxy, &[]);
    let output = node.command(&["pull", &format!("{}/old:1", proxy.address)]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("skopeo"), "{said}");
}
