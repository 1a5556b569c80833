//! What a pod sees is what others make of the same image: an image that real builders wrote, pushed by skopeo to
//! a real registry with TLS and passwords, pulled and mounted by the program, against umoci's unpacked tree.
//! Content, modes, owners, times, extended attributes and hardlinks of every file. Needs root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use composefs_csi::image::entry::LayerEntry;

use crate::support::driver::Machine;
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::installed;
use crate::support::unpacked;

/// An image of two layers, as umoci builds it: everything that a tar can hold, then changes to it.
fn build(directory: &Path) -> String {
    let layout = directory.join("layout");
    let image = format!("{}:v1", layout.display());
    let bundle = directory.join("bundle");
    let umoci = |arguments: &[&str]| run(Command::new(installed("umoci")).args(arguments));
    umoci(&["init", "--layout", layout.to_str().unwrap()]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, bundle.to_str().unwrap()]);
    first_layer(&bundle.join("rootfs"));
    umoci(&["repack", "--refresh-bundle", "--image", &image, bundle.to_str().unwrap()]);
    second_layer(&bundle.join("rootfs"));
    umoci(&["repack", "--refresh-bundle", "--image", &image, bundle.to_str().unwrap()]);
    image
}

fn first_layer(root: &Path) {
    for directory in ["usr/bin", "usr/share/doc", "etc", "gone/deep", "replaced"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("usr/bin/tool"), vec![7; 200_000]).unwrap();
    fs::set_permissions(root.join("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/same-tool")).unwrap();
    symlink("tool", root.join("usr/bin/alias")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    fs::write(root.join("etc/small"), b"inline").unwrap();
    fs::write(root.join("etc/empty"), b"").unwrap();
    fs::write(root.join("etc/owned"), vec![1; 65]).unwrap();
    chown(root.join("etc/owned"), Some(70_000), Some(123)).unwrap();
    let long = format!("usr/share/doc/{}", "n".repeat(250));
    fs::write(root.join(&long), vec![2; 4096]).unwrap();
    rustix::fs::setxattr(
        root.join("etc/small"),
        "user.colour",
        b"blue\0\xff",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    // cap_net_bind_service+ep, version 2.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(
        root.join("usr/bin/tool"),
        "security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    run(Command::new("mkfifo").arg(root.join("etc/fifo")));
    fs::write(root.join("gone/deep/file"), vec![3; 100]).unwrap();
    fs::write(root.join("gone/other"), b"x").unwrap();
    fs::write(root.join("replaced/below"), b"x").unwrap();
    for number in 0..300 {
        let at = root.join(format!("usr/share/doc/file-{number}"));
        fs::write(&at, format!("{number} ").repeat(number + 1)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + number as u64, 123_456_789);
        fs::File::open(&at).unwrap().set_modified(time).unwrap();
    }
}

fn second_layer(root: &Path) {
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_file(root.join("usr/share/doc/file-7")).unwrap();
    fs::remove_dir_all(root.join("replaced")).unwrap();
    fs::write(root.join("replaced"), b"now a file").unwrap();
    fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(root.join("usr/bin/new"), vec![9; 100_000]).unwrap();
}

/// What umoci unpacks.
fn umoci_unpack(image: &str, into: &Path) -> Vec<LayerEntry> {
    run(Command::new(installed("umoci")).args(["unpack", "--image", image]).arg(into));
    unpacked::entries(&into.join("rootfs"))
}

fn compare(theirs: &[LayerEntry], ours: &[LayerEntry]) {
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert_eq!(theirs, ours, "{}", String::from_utf8_lossy(&theirs.path));
    }
    assert_eq!(theirs.len(), ours.len());
}

#[test]
fn a_mounted_image_is_what_umoci_unpacks() {
    let registry = Registry::start(Options { tls: true, user: Some(("tenant", "correct horse")) });
    let machine = Machine::new(&[]);
    let image = build(machine.path());
    let auth = machine.path().join("config.json");
    fs::write(&auth, registry.docker_config("correct horse")).unwrap();
    let (auth, ca) = (auth.display().to_string(), registry.ca_file().display().to_string());
    let access = ["--auth-file", &auth, "--registry-ca", &ca];

    let mut theirs = umoci_unpack(&image, &machine.path().join("theirs"));
    theirs.sort_by(|a, b| a.path.cmp(&b.path));
    for (name, push) in [("oci", &["--format=oci"][..]), ("docker", &["--format=v2s2"][..])] {
        let reference = registry.push(&format!("oci:{image}"), &format!("tenant/{name}:v1"), push);
        let target = machine.path().join(format!("seen-{name}"));
        fs::create_dir(&target).unwrap();
        let mount =
            ["mount", &reference, target.to_str().unwrap(), "--keep-special-files", "--keep-privileges"];
        machine.run(&[&mount[..], &access[..]].concat());
        let mut ours = unpacked::entries(&target);
        ours.sort_by(|a, b| a.path.cmp(&b.path));
        compare(&theirs, &ours);
        machine.run(&["unmount", target.to_str().unwrap()]);
    }
    let listing = machine.run(&["ls"]);
    let images = listing["images"].as_array().unwrap();
    assert_eq!(images.len(), 2, "two manifests");
    assert_eq!(images[0]["image"], images[1]["image"], "of the same content: one composefs image");

    // Without the password nothing is answered, cached or not.
    let refused =
        machine.command(&["pull", &format!("{}/tenant/oci:v1", registry.host()), "--registry-ca", &ca]);
    let output = { refused }.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("credentials"), "{complaint}");
    assert!(!complaint.contains("correct horse"));
}

#[test]
fn an_image_that_buildah_built_is_what_podman_mounts() {
    let machine = Machine::new(&[]);
    let storage = machine.path().join("containers");
    let tool = |program: &str, arguments: &[&str]| {
        let output = run(Command::new(installed(program))
            .arg("--root")
            .arg(storage.join("root"))
            .arg("--runroot")
            .arg(storage.join("run"))
            .args(["--storage-driver", "overlay"])
            .args(arguments));
        String::from_utf8(output).unwrap().trim().to_owned()
    };
    let container = tool("buildah", &["from", "scratch"]);
    let root = tool("buildah", &["mount", &container]);
    first_layer(Path::new(&root));
    tool("buildah", &["umount", &container]);
    tool("buildah", &["commit", "--quiet", &container, "built:1"]);
    let layout = machine.path().join("layout");
    tool("buildah", &["push", "--quiet", "built:1", &format!("oci:{}:v1", layout.display())]);

    let theirs = unpacked::entries(Path::new(&tool("podman", &["image", "mount", "built:1"])));
    let target = machine.path().join("seen");
    fs::create_dir(&target).unwrap();
    let image = format!("oci:{}:v1", layout.display());
    machine.run(&["mount", &image, target.to_str().unwrap(), "--keep-special-files", "--keep-privileges"]);
    let ours = unpacked::entries(&target);
    // The root has no entry in such a layer; everybody makes up its own.
    compare(&theirs[1..], &ours[1..]);
    machine.run(&["unmount", target.to_str().unwrap()]);
    tool("podman", &["image", "unmount", "--all"]);
    tool("buildah", &["rm", "--all"]);
}
