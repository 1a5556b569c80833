//! The initramfs: busybox, kernel modules, this test binary and the libraries that it is linked with.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::tools;

/// What the tests need and Debian's kernel does not have built in.
const MODULES: [&str; 4] = ["virtio_blk", "erofs", "overlay", "loop"];

const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t selinuxfs selinux /sys/fs/selinux
while read -r module; do insmod "/modules/$module.ko"; done </modules/order
mount -t ext4 /dev/vda /disk
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = results ] && RESULTS=/dev/${port##*/}
done
export RESULTS
/test guest --ignored --exact --nocapture
echo "the test ended with $?"
dmesg | tail -n 40
poweroff -f
"#;

/// Writes an uncompressed cpio archive.
pub fn write(path: &Path, kernel_set: &Path, busybox: &Path) {
    let mut archive = Archive::new(path);
    for directory in ["bin", "proc", "sys", "dev", "tmp", "disk", "modules"] {
        archive.directory(directory);
    }
    // Without it, the first process has no output.
    archive.entry("dev/console", 0o020_600, (5, 1), &[]);
    archive.file("init", 0o755, INIT.as_bytes());
    archive.copy("bin/busybox", busybox);
    archive.file("test", 0o755, &stripped(&std::env::current_exe().expect("this program has a path")));
    add_composefs(&mut archive);
    for library in libraries() {
        archive.copy(library.to_str().expect("a library's path").trim_start_matches('/'), &library);
    }
    let mut order = Vec::new();
    for module in MODULES {
        add_module(&mut archive, &kernel_set.join("modules"), module, &mut order);
    }
    archive.file("modules/order", 0o644, format!("{}\n", order.join("\n")).as_bytes());
    // For the rows about SELinux: the policy, and a small program that needs the dynamic linker.
    archive.file("selinux/policy", 0o644, &selinux_policy());
    archive.copy("selinux/program", &tools::installed("true"));
    archive.finish();
}

/// The composefs project's mount.composefs, with its own C library.
fn add_composefs(archive: &mut Archive) {
    let root = tools::debian_set("mkcomposefs").join("root/usr");
    archive.copy("composefs/mount.composefs", &root.join("sbin/mount.composefs"));
    let libraries = root.join("lib/x86_64-linux-gnu");
    archive.copy("composefs/ld.so", &libraries.join("ld-linux-x86-64.so.2"));
    for name in ["libc.so.6", "libcomposefs.so.1", "libcrypto.so.3", "libz.so.1", "libzstd.so.1"] {
        archive.copy(&format!("composefs/lib/{name}"), &libraries.join(name));
    }
}

/// `vm/selinux.cil`, compiled.
fn selinux_policy() -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/selinux.cil");
    let to = scratch("policy");
    output(
        Command::new(tools::debian("secilc", "secilc"))
            .arg("-o")
            .arg(&to)
            .args(["-f", "/dev/null"])
            .arg(source),
    );
    taken(&to)
}

/// A module, after those that it depends on. Debian's kernel packages have no modules.dep.
fn add_module(archive: &mut Archive, directory: &Path, name: &str, order: &mut Vec<String>) {
    if order.iter().any(|added| added == name) {
        return;
    }
    let file = find_module(directory, name);
    let file = file.unwrap_or_else(|| panic!("no module {name} in {}", directory.display()));
    let content = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => output(Command::new(tools::installed("xz")).arg("-dc").arg(&file)),
        Some("zst") => output(Command::new(tools::installed("zstd")).arg("-dcq").arg(&file)),
        _ => std::fs::read(&file).expect("cannot read a module"),
    };
    for needed in dependencies(&content) {
        add_module(archive, directory, &needed, order);
    }
    archive.file(&format!("modules/{name}.ko"), 0o644, &content);
    order.push(name.to_owned());
}

fn find_module(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let (path, file) = (entry.path(), entry.file_name());
        let stem = file.to_string_lossy().split(".ko").next().map(|stem| stem.replace('-', "_"));
        if path.is_dir() && !path.is_symlink() {
            if let Some(found) = find_module(&path, name) {
                return Some(found);
            }
        } else if stem.as_deref() == Some(name) && file.to_string_lossy().contains(".ko") {
            return Some(path);
        }
    }
    None
}

/// The names in the `depends=` entry of a module's .modinfo.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(start) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module[start + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The paths that ldd shows: libraries after `=>`, and the loader.
fn libraries() -> Vec<PathBuf> {
    let listed = output(Command::new("ldd").arg(std::env::current_exe().expect("this program has a path")));
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let words = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

fn stripped(program: &Path) -> Vec<u8> {
    let to = scratch("test");
    output(Command::new(tools::installed("strip")).arg("-o").arg(&to).arg(program));
    taken(&to)
}

/// A file for one of the threads that prepare machines.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vm-{name}-{:?}", std::thread::current().id()))
}

/// Reads a file that a tool wrote, and removes it.
fn taken(path: &Path) -> Vec<u8> {
    let content = std::fs::read(path).expect("cannot read what a tool wrote");
    std::fs::remove_file(path).expect("cannot remove what a tool wrote");
    content
}

fn output(command: &mut Command) -> Vec<u8> {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make setup`"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).
struct Archive {
    file: BufWriter<File>,
    inode: u32,
    directories: Vec<String>,
}

impl Archive {
    fn new(path: &Path) -> Self {
        let file = BufWriter::new(File::create(path).expect("cannot make an initramfs"));
        Self { file, inode: 0, directories: Vec::new() }
    }

    fn directory(&mut self, name: &str) {
        if !name.is_empty() && !self.directories.iter().any(|made| made == name) {
            self.directory(name.rsplit_once('/').map_or("", |(parent, _)| parent));
            self.entry(name, 0o040_755, (0, 0), &[]);
            self.directories.push(name.to_owned());
        }
    }

    fn copy(&mut self, name: &str, from: &Path) {
        let content = std::fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self.file(name, 0o755, &content);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.directory(name.rsplit_once('/').map_or("", |(parent, _)| parent));
        self.entry(name, 0o100_000 | mode, (0, 0), content);
    }

    fn finish(mut self) {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.file.flush().expect("cannot write the initramfs");
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inode += 1;
        let (size, name_size) = (content.len(), name.len() + 1);
        let size = u32::try_from(size).expect("a small file");
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08X}"));
        }
        head.push_str(&format!("{name_size:08X}{:08X}{name}\0", 0));
        self.padded(head.as_bytes());
        self.padded(content);
    }

    /// Everything starts at a multiple of four.
    fn padded(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).expect("cannot write the initramfs");
        self.file.write_all(&[0; 3][..bytes.len().next_multiple_of(4) - bytes.len()]).expect("cannot write");
    }
}
