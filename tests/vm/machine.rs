//! The virtual machine: QEMU without acceleration, one disk, one port for results.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::tools;
use crate::{Row, initramfs};

/// Ten times what it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Boots `kernel`, runs the guest's rows, and returns them with the console's output.
pub fn run(kernel: &str) -> (Vec<Row>, String) {
    let kernel_set = tools::debian_set(kernel);
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vm-{kernel}"));
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work).expect("cannot make a working directory");
    let (initrd, disk) = (work.join("initrd"), work.join("disk"));
    initramfs::write(&initrd, &kernel_set, &tools::debian("qemu", "busybox"));
    make_disk(&disk);
    let (results, console) = (work.join("results"), work.join("console"));
    boot(&kernel_set.join("vmlinuz"), &initrd, &disk, &results, &console);
    let rows = std::fs::read_to_string(&results).unwrap_or_default();
    // A machine that died leaves the beginning of a line, which is no row.
    let rows = rows.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let console = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
    let _ = std::fs::remove_file(&disk);
    (rows, console)
}

/// ext4 with fs-verity.
fn make_disk(path: &Path) {
    File::create(path).and_then(|file| file.set_len(128 << 20)).expect("cannot make a disk");
    let mke2fs =
        ["/usr/sbin/mke2fs", "/sbin/mke2fs"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let status = Command::new(mke2fs.expect("mke2fs is not installed; run `make setup`"))
        .args(["-q", "-F", "-t", "ext4", "-O", "verity", "-b", "4096", "-E", "lazy_itable_init=1,nodiscard"])
        .arg(path)
        .status();
    assert!(status.expect("cannot run mke2fs").success(), "mke2fs failed");
}

fn boot(kernel: &Path, initrd: &Path, disk: &Path, results: &Path, console: &Path) {
    let drive = format!("if=none,id=disk,file={},format=raw,cache=unsafe", disk.display());
    let port = format!("file,id=results,path={}", results.display());
    let output = File::create(console).expect("cannot make the console's file");
    let mut machine = Command::new(tools::debian("qemu", "qemu-system-x86_64"))
        // One processor: QEMU's emulation of several trips over the kernel patching its own code (int3 oopses).
        // No cmpxchg16b: QEMU 7.2's emulation of it now and then loses the flags, and the kernel's allocator double-faults;
        // without it the allocator takes a lock.
        .args(["-M", "q35", "-accel", "tcg", "-cpu", "qemu64,-cx16", "-smp", "1", "-m", "1024"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .args(["-device", "virtio-serial-pci", "-chardev", &port])
        .args(["-device", "virtserialport,chardev=results,name=results"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args([
            "-append",
            "console=ttyS0 panic=-1 mitigations=off cryptomgr.notests no_timer_check \
             tsc=reliable random.trust_cpu=on oops=panic rdinit=/init loglevel=4 security=selinux",
        ])
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("cannot share the console's file"))
        .stderr(output)
        .spawn()
        .expect("cannot run QEMU");
    let started = Instant::now();
    while machine.try_wait().expect("cannot wait for QEMU").is_none() {
        if started.elapsed() > PATIENCE {
            machine.kill().expect("cannot stop QEMU");
            machine.wait().expect("cannot wait for QEMU");
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
