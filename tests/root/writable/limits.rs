//! The limit is exact, and a hostile pod cannot lift it.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use super::{MIB, layout, machine, publish, stats, unpublish, used, writable};
use crate::support::archive::noise;

/// Writes until there is no room; returns how much that was.
pub fn fill(path: &Path) -> u64 {
    let mut file = fs::File::create(path).unwrap();
    let mut written = 0;
    loop {
        match file.write(&[7; 4096]) {
            Ok(count) => written += count as u64,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
                return written;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_exact_and_full_is_not_broken() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let target = publish(&plugin, writable(&machine, "full", &image, "2Mi")).await.unwrap();
    let next = publish(&plugin, writable(&machine, "next", &image, "2Mi")).await.unwrap();
    assert_eq!(fill(&target.join("new")), 2 * MIB);
    // Nothing is copied up, and everything can be read.
    let append = fs::OpenOptions::new().append(true).open(target.join("data/big"));
    assert_eq!(append.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(fs::read(target.join("data/big")).unwrap() == noise("writable", MIB as usize));
    let full = stats(&plugin, &machine, "full").await;
    assert_eq!((full.usage[0].total, full.usage[0].available), (2 * MIB as i64, 0));
    let condition = full.volume_condition.unwrap();
    assert!(
        !condition.abnormal && condition.message.starts_with("writable, full: 2.1 MB of 2.1 MB"),
        "{condition:?}"
    );
    assert_eq!(used(&plugin, &machine, "next").await.0, 0);
    fs::write(next.join("new"), "the room of another").unwrap();
    fs::remove_file(target.join("new")).unwrap();
    fs::OpenOptions::new().append(true).open(target.join("data/big")).unwrap().write_all(b"x").unwrap();

    // Files without data have a limit too: they take memory of the kernel.
    let total = stats(&plugin, &machine, "next").await.usage[1].total;
    let made = (0..=total).take_while(|number| match fs::File::create(next.join(format!("f{number}"))) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            false
        }
    });
    let made = made.count() as i64;
    assert!(made < total && made > total / 2, "{made} of {total}");
    for pod in ["full", "next"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}

/// By root in a mount namespace of its own, which is more than a container has.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_pod_stays_within() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let target = publish(&plugin, writable(&machine, "evil", &image, "2Mi")).await.unwrap();
    let script = r#"
        mount -o remount,size=1g,nr_inodes=0 "$0" && echo remounted
        mkdir /tmp/moved && mount --bind "$0" /tmp/moved
        mount -o remount,bind,suid,dev /tmp/moved
        # No project quota, so no way out of one.
        chattr -p 0 /tmp/moved/data/small
        # What overlayfs believes of an upper cannot be written by who only has the overlay.
        setfattr -n trusted.overlay.redirect -v /data/deep/big /tmp/moved/data/small
        setfattr -n trusted.overlay.metacopy /tmp/moved/data/small
        setfattr -n trusted.overlay.opaque -v y /tmp/moved/data
        head -c 8388608 /dev/zero > /tmp/moved/evil
        umount /tmp/moved; mount --move "$0" /tmp/moved; true
    "#;
    let script = format!("mount -t tmpfs tmpfs /tmp\n{script}");
    let output =
        Command::new("unshare").args(["--mount", "sh", "-c", &script]).arg(&target).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let written = fs::metadata(target.join("evil")).unwrap().len();
    assert!((MIB..=2 * MIB).contains(&written), "{written}: {output:?}");
    let usage = stats(&plugin, &machine, "evil").await.usage;
    assert_eq!((usage[0].total, usage[0].used), (2 * MIB as i64, 2 * MIB as i64));
    assert_eq!(usage[1].total, 1024);
    // In another mount of the same image, and in this one, everything is the image's.
    assert_eq!(fs::read(target.join("data/small")).unwrap(), b"small");
    assert_eq!(super::names(&target.join("data")), ["big", "deep", "small"]);
    let plain = publish(&plugin, machine.publish("plain", &image)).await.unwrap();
    assert!(!plain.join("evil").exists());
    for pod in ["evil", "plain"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}
