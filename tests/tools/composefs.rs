//! The composefs project's tools on our store, and this program on what they make: `mount.composefs`, `composefs-info` and
//! `mkcomposefs` 1.0.8, `cfsctl` of composefs-rs. What needs fs-verity is in `vm/host.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use composefs_csi::image::entry::LayerEntry;
use composefs_csi::image::verity::VerityDigest;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, mounts_below};
use crate::support::images::{Image, Layout};
use crate::support::{tools, unpacked};

/// A store with one image, and what the program says of it.
struct Store {
    machine: Machine,
    /// The image's file.
    image: PathBuf,
    digest: String,
    reference: String,
    _layout: Layout,
}

impl Store {
    fn new() -> Self {
        let layout = Layout::of(&Image::new(vec![
            archive(&[("usr/", b""), ("usr/large", &noise("large", 3_000_000)), ("usr/small", b"small")]),
            archive(&[("usr/second", &noise("second", 70_000)), ("etc/hosts", &noise("hosts", 200))]),
        ]));
        let machine = Machine::new(&[]);
        let reference = layout.reference("latest");
        let digest = machine.run(&["pull", &reference])["image"].as_str().unwrap().to_owned();
        let image = machine.state().join("store/objects").join(&digest[..2]).join(&digest[2..]);
        Self { machine, image, digest, reference, _layout: layout }
    }

    fn objects(&self) -> PathBuf {
        self.machine.state().join("store/objects")
    }

    fn target(&self, name: &str) -> PathBuf {
        let target = self.machine.path().join(name);
        std::fs::create_dir_all(&target).unwrap();
        target
    }

    /// What this program shows of the image.
    fn ours(&self) -> Vec<LayerEntry> {
        let target = self.target("ours");
        self.machine.run(&["mount", &self.reference, target.to_str().unwrap()]);
        unpacked::entries(&target)
    }
}

/// The composefs project's own program for mounting, which is in no directory of programs.
fn mount_composefs(options: &str, image: &Path, target: &Path) -> Output {
    let root = tools::debian_set("mkcomposefs").join("root/usr");
    let libraries = root.join("lib/x86_64-linux-gnu");
    Command::new(libraries.join("ld-linux-x86-64.so.2"))
        .arg("--library-path")
        .arg(&libraries)
        .arg(root.join("sbin/mount.composefs"))
        .args(["-o", options])
        .args([image, target])
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn info(objects: &Path, question: &str, image: &Path) -> String {
    let mut command = Command::new(tools::debian("mkcomposefs", "composefs-info"));
    command.arg(format!("--basedir={}", objects.display())).arg(question).arg(image);
    said(&command.output().unwrap())
}

#[test]
fn mount_composefs_shows_what_we_show() {
    let store = Store::new();
    let target = store.target("theirs");
    said(&mount_composefs(&format!("basedir={}", store.objects().display()), &store.image, &target));
    let (ours, theirs) = (store.ours(), unpacked::entries(&target));
    assert_eq!(ours.len(), 7, "{ours:?}");
    assert_eq!(ours, theirs);
    // Their mount is none of ours, and is left alone.
    let output = store.machine.command(&["unmount", target.to_str().unwrap()]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("did not make"), "{complaint}");
}

#[test]
fn composefs_info_finds_every_object() {
    let store = Store::new();
    let listed = info(&store.objects(), "objects", &store.image);
    let listed: BTreeSet<String> = listed.lines().map(|line| line.replace('/', "")).collect();
    let files = store.machine.run(&["inspect", "--files", &store.reference]);
    let named = files["files"].as_array().unwrap().iter().filter_map(|file| file["object"].as_str());
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert_eq!((listed.len(), &listed), (3, &named));
    assert_eq!(info(&store.objects(), "missing-objects", &store.image), "");
    assert_eq!(info(&store.objects(), "measure-file", &store.image).trim(), store.digest);
    let lost = named.first().unwrap();
    let (directory, name) = lost.split_at(2);
    std::fs::remove_file(store.objects().join(directory).join(name)).unwrap();
    let missing = info(&store.objects(), "missing-objects", &store.image);
    assert_eq!(missing.trim(), format!("{directory}/{name}"));
}

fn cfsctl(repository: &Path, arguments: &[&str]) -> Output {
    Command::new(tools::cfsctl())
        .args(["--insecure", "--repo"])
        .arg(repository)
        .args(arguments)
        .output()
        .unwrap()
}

/// As docs/composefs-tools.md says: not the store itself, but a repository that borrows its objects, read-only.
#[test]
#[ignore = "builds cfsctl, some minutes; `make test-oracle` runs it"]
fn cfsctl_checks_and_mounts_a_view_of_the_store() {
    let store = Store::new();
    let view = store.target("view");
    said(&cfsctl(&view, &["init", "--insecure", "--algorithm", "fsverity-sha256-12"]));
    let (objects, images) = (view.join("objects"), view.join("images"));
    for directory in [&objects, &images] {
        std::fs::create_dir_all(directory).unwrap();
    }
    let mount = |arguments: &[&str]| {
        let status = Command::new("mount").args(arguments).arg(&objects).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    mount(&["--bind", store.objects().to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro"]);
    let (directory, name) = store.digest.split_at(2);
    let link = Path::new("../objects").join(directory).join(name);
    std::os::unix::fs::symlink(link, images.join(&store.digest)).unwrap();

    let checked = said(&cfsctl(&view, &["fsck"]));
    for line in ["objects: 4/4 ok", "images: 1/1 ok", "status: ok"] {
        assert!(checked.contains(line), "{checked}");
    }
    let listed = said(&cfsctl(&view, &["image-objects", &store.digest]));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let target = store.target("theirs");
    said(&cfsctl(&view, &["mount", "--fuse", "no", &store.digest, target.to_str().unwrap()]));
    assert_eq!(unpacked::entries(&target), store.ours());
    // It knows of no image but the one that is linked, and would remove what the others have.
    std::fs::remove_file(images.join(&store.digest)).unwrap();
    cfsctl(&view, &["gc"]);
    assert!(store.image.exists(), "it cannot write");
    // An object that rots is named.
    let files = store.machine.run(&["inspect", "--files", &store.reference]);
    let object = files["files"].as_array().unwrap().iter().find_map(|file| file["object"].as_str()).unwrap();
    std::fs::write(store.objects().join(&object[..2]).join(&object[2..]), noise("other", 200)).unwrap();
    let checked = cfsctl(&view, &["fsck"]);
    let report = String::from_utf8_lossy(&checked.stdout);
    assert!(!checked.status.success() && report.contains(&object[2..]), "{report}");
}

/// What mkcomposefs has made of a directory.
struct Made {
    source: PathBuf,
    image: PathBuf,
    objects: PathBuf,
    digest: String,
}

fn made(machine: &Machine) -> Made {
    let [source, objects] = ["source", "objects"].map(|name| machine.path().join(name));
    std::fs::create_dir_all(source.join("usr/bin")).unwrap();
    std::fs::write(source.join("usr/bin/tool"), noise("tool", 500_000)).unwrap();
    std::fs::write(source.join("usr/small"), "small").unwrap();
    std::os::unix::fs::symlink("usr/small", source.join("link")).unwrap();
    let image = machine.path().join("image.cfs");
    let mut command = Command::new(tools::debian("mkcomposefs", "mkcomposefs"));
    command
        .arg(format!("--digest-store={}", objects.display()))
        .arg("--print-digest")
        .args([&source, &image]);
    let digest = said(&command.output().unwrap()).trim().to_owned();
    Made { source, image, objects, digest }
}

#[test]
fn what_mkcomposefs_has_made_is_mounted() {
    let machine = Machine::new(&[]);
    let Made { source, image, objects, digest } = made(&machine);
    let target = machine.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let name = format!("composefs:{}@{digest}", image.display());
    let (place, objects_of) = (target.to_str().unwrap(), format!("--object-source={}", objects.display()));
    let words = ["mount", &name, place, &objects_of, "--noverity", "--verify", "mount"];
    for words in [&words[..5], &words[..]] {
        let mounted = machine.run(words);
        assert_eq!(mounted["composefs"], *digest);
        assert_eq!(mounted["integrity"], if words.len() == 5 { "fetch" } else { "mount" });
        assert_eq!(unpacked::entries(&target), unpacked::entries(&source));
        // Neither a store nor a key is made for it.
        assert!(!machine.state().join("store").exists() && !machine.state().join("node.key").exists());
        let again = failure(&machine, words);
        assert!(again.contains("mount point already"), "{again}");
        machine.run(&["unmount", place]);
        assert_eq!(mounts_below(machine.path()), Vec::<PathBuf>::new());
    }
    // A file of it is another one now.
    let digest = VerityDigest::of(&noise("tool", 500_000)).hex();
    std::fs::write(objects.join(&digest[..2]).join(&digest[2..]), noise("other", 500_000)).unwrap();
    let refused = failure(&machine, &words);
    assert!(refused.contains(&digest[2..]) && refused.contains("holds other content"), "{refused}");
    std::fs::remove_file(objects.join(&digest[..2]).join(&digest[2..])).unwrap();
    assert!(failure(&machine, &words).contains("is missing"));
    assert_eq!(mounts_below(machine.path()), Vec::<PathBuf>::new());
}

fn failure(machine: &Machine, words: &[&str]) -> String {
    let output = machine.command(words).output().unwrap();
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_not_proven_or_not_theirs_is_refused() {
    let machine = Machine::new(&[]);
    let Made { image, objects, digest, .. } = made(&machine);
    let target = machine.path().join("target");
    std::fs::create_dir(&target).unwrap();
    let place = target.to_str().unwrap();
    let source = format!("--object-source={}", objects.display());
    let named = |path: &Path, digest: &str| format!("composefs:{}@{digest}", path.display());
    let refused = |name: &str, more: &[&str]| failure(&machine, &[&["mount", name, place], more].concat());
    let good = named(&image, &digest);
    // This machine's disk may have fs-verity; the file has not.
    assert!(refused(&good, &[&source]).contains("has no fs-verity"));
    assert!(refused(&good, &["--noverity"]).contains("--object-source"));
    assert!(refused(&good, &[&source, "--verify", "mount"]).contains("--noverity"));
    let other = named(&image, &"7".repeat(64));
    assert!(refused(&other, &[&source, "--noverity"]).contains(&digest));
    let missing = named(&machine.path().join("none"), &digest);
    assert!(refused(&missing, &[&source, "--noverity"]).contains("cannot be opened"));
    assert!(refused(&named(&objects, &digest), &[&source, "--noverity"]).contains("not a regular file"));
    assert!(refused(&format!("composefs:{}", image.display()), &[]).contains("has no digest"));
    assert!(refused(&good, &["--object-source=/none", "--noverity"]).contains("/none"));
    // EROFS with compression, as mkfs.erofs makes it, whoever vouches for it.
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[1024 + 80] |= 1;
    let compressed = machine.path().join("compressed.erofs");
    std::fs::write(&compressed, &bytes).unwrap();
    let name = named(&compressed, &VerityDigest::of(&bytes).hex());
    assert!(refused(&name, &[&source, "--noverity"]).contains("no composefs tool writes"));
    assert_eq!(mounts_below(machine.path()), Vec::<PathBuf>::new());
}

/// Several directories are asked in order; a directory of the image is mounted, without programs.
#[test]
fn the_first_directory_that_has_a_file_gives_it() {
    let machine = Machine::new(&[]);
    let Made { source, image, objects, digest } = made(&machine);
    let [target, empty] = ["target", "empty"].map(|name| machine.path().join(name));
    for directory in [&target, &empty] {
        std::fs::create_dir(directory).unwrap();
    }
    let name = format!("composefs:{}@{digest}", image.display());
    let sources = format!("--object-source={},{}", empty.display(), objects.display());
    let place = target.to_str().unwrap();
    machine.run(&["mount", &name, place, &sources, "--noverity", "--path", "usr/bin", "--noexec"]);
    assert_eq!(
        std::fs::read(target.join("tool")).unwrap(),
        std::fs::read(source.join("usr/bin/tool")).unwrap()
    );
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(place)).unwrap();
    assert!(line.contains("ro,nosuid,nodev,noexec") && line.contains("composefs-file:"), "{line}");
    machine.run(&["unmount", place]);
}
