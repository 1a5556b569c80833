//! What a pod writes to a disk: a filesystem of its own in a file without a name, which ends with the volume.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::statvfs;
use tonic::Code;

use super::limits::fill;
use super::{MIB, container, layout, machine, on_disk, publish, stats, unpublish};
use crate::support::archive::noise;
use crate::support::disk::SmallDisk;
use crate::support::wait::eventually;

/// Bytes of the file system at `path` that are free.
fn free(path: &Path) -> u64 {
    let found = statvfs(path).unwrap();
    found.f_bfree * found.f_frsize
}

/// The loop device of a file in this directory.
fn device(directory: &Path) -> PathBuf {
    let of = directory.display().to_string();
    let output =
        Command::new("losetup").args(["--list", "--noheadings", "--output", "NAME,BACK-FILE"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let line = text.lines().find(|line| line.contains(&of)).unwrap_or_else(|| panic!("{of}: {text}"));
    PathBuf::from(line.split_whitespace().next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_what_was_asked_for_and_leaves_nothing() {
    let layout = layout();
    let machine = machine(&layout);
    let _disk = SmallDisk::mount(&machine.state(), 200, 2000);
    let mut plugin = machine.start_by(&container()).await;
    let image = layout.reference("latest");
    let before = free(&machine.state());
    let target = publish(&plugin, on_disk(&machine, "pod", &image, "16Mi")).await.unwrap();
    let taken = before - free(&machine.state());
    assert!((16 * MIB..19 * MIB).contains(&taken), "its room is taken at once: {taken}");
    // As in memory: what is not changed costs nothing, and what the image has can be changed.
    fs::set_permissions(target.join("data/big"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(target.join("data"), target.join("moved")).unwrap();
    fs::OpenOptions::new().append(true).open(target.join("home/file")).unwrap().write_all(b"x").unwrap();
    fs::remove_file(target.join("again")).unwrap();
    assert!(fs::read(target.join("moved/big")).unwrap() == noise("writable", MIB as usize));

    // Killed and started again, the plugin knows it.
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    drop(plugin);
    let plugin = machine.start_by(&container()).await;
    publish(&plugin, on_disk(&machine, "pod", &image, "16Mi")).await.unwrap();
    assert!(target.join("moved/big").exists(), "the same volume");
    let written = fill(&target.join("new"));
    assert!((15 * MIB..18 * MIB).contains(&written), "{written}");
    let full = stats(&plugin, &machine, "pod").await;
    assert!(full.usage[0].available < MIB as i64 / 4, "{:?}", full.usage);
    assert!(!full.volume_condition.unwrap().abnormal);
    fs::remove_file(target.join("new")).unwrap();
    let usage = stats(&plugin, &machine, "pod").await.usage.remove(0);
    assert!(usage.available > 15 * MIB as i64, "{usage:?}");
    // Others have their own room, as long as the disk has any.
    for pod in ["second", "third"] {
        publish(&plugin, on_disk(&machine, pod, &image, "64Mi")).await.unwrap();
    }
    let status = publish(&plugin, on_disk(&machine, "fourth", &image, "64Mi")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("upperSizeLimit"), "{status}");
    assert_eq!(machine.published().len(), 3, "nothing is mounted of what does not fit");

    for pod in ["pod", "second", "third", "fourth"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
    // Of which the image has a MiB or two.
    eventually("the room is given back", || free(&machine.state()) + 4 * MIB > before).await;
}

/// e2fsck judges the filesystem that is made by hand, as it is made and after a pod has worked in it.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_the_filesystem_that_ext4s_own_tools_know() {
    let layout = layout();
    let machine = machine(&layout);
    let _disk = SmallDisk::mount(&machine.state(), 600, 2000);
    let plugin = machine.start().await;
    // Over the end of the first group, within it, and so that the last one would be too small.
    for (pod, limit) in [("small", "1Mi"), ("large", "64Mi"), ("odd", "33555Ki")] {
        let target =
            publish(&plugin, on_disk(&machine, pod, &layout.reference("latest"), limit)).await.unwrap();
        for number in 0..200 {
            fs::create_dir(target.join(format!("directory-{number}"))).unwrap();
        }
        fs::write(target.join("directory-7/file"), noise(pod, 100_000)).unwrap();
        rustix::fs::syncfs(fs::File::open(&target).unwrap()).unwrap();
        let copy = machine.path().join(format!("{pod}.ext4"));
        let device = device(&machine.state().join("mounts"));
        rustix::fs::sync();
        copy_of(&device, &copy);
        let output = Command::new("e2fsck")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .args(["-f", "-n"])
            .arg(&copy)
            .output();
        let output = output.unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{limit}: {said}");
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}

/// What the device holds now: its filesystem is mounted, so only what is synced is there.
fn copy_of(device: &Path, to: &Path) {
    let (from, to) = (fs::File::open(device).unwrap(), fs::File::create(to).unwrap());
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match from.read_at(&mut buffer, at).unwrap() {
            0 => break,
            count => {
                to.write_all_at(&buffer[..count], at).unwrap();
                at += count as u64;
            }
        }
    }
}
