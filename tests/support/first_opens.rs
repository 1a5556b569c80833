//! Ways to open a file, each of which must wait where the file's content is yet to come, and then work as ever.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use composefs_csi::node::mount::KernelMounter;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use super::late::Late;
use super::mount::{Bench, content};
use super::pages::Mapping;

/// A way to open the file at this path, which has these bytes.
type Way = fn(&Path, &[u8]);

/// Each with its name.
pub const WAYS: &[(&str, Way)] = &[
    ("read", read),
    ("a shared mapping", mapping),
    ("sendfile", sendfile),
    ("copy", copy),
    ("O_DIRECT", direct),
    ("O_PATH, then /proc/self/fd", by_path_descriptor),
    ("another user", another_user),
    ("namespaces of its own", namespaces),
    ("a clone of the mount", clone_of_mount),
    ("an overlay on top", overlay),
    ("copying up by an overlay on top", copy_up),
    ("truncating by an overlay on top", truncate),
    ("renaming by an overlay on top", rename),
];

/// Opens a file of a lazily mounted image in each of these ways, and runs `program` from it. Returns how many there were.
pub fn all(bench: &Bench, mounter: &KernelMounter, program: &[u8]) -> usize {
    let names: Vec<String> = (0..WAYS.len()).map(|number| format!("f{number}")).collect();
    let mut files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .enumerate()
        // Of whole pages, as O_DIRECT wants it.
        .map(|(number, name)| (name.as_str(), content(100 + number as u8, 3 * 4096)))
        .collect();
    files.push(("program", program.to_vec()));
    let late = Late::new(bench, &files);
    let target = bench.target("lazy");
    let (mount, wanted) = late.mount(mounter, &target);
    for (name, bytes) in &files {
        let path = target.join(name);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
        let mut names = [0_u8; 1024];
        rustix::fs::listxattr(&path, &mut names).unwrap();
        rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap();
    }
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), files.len());
    assert!(wanted.try_recv().is_err(), "looking at names opens nothing");
    let arrivals = Arc::clone(mount.arrivals());
    let brought = std::thread::scope(|scope| {
        let bringing = scope.spawn(|| late.bring_all(&arrivals, wanted));
        for ((name, bytes), (way, open)) in files.iter().zip(WAYS) {
            println!("first open: {way}");
            open(&target.join(name), bytes);
        }
        let status = Command::new(target.join("program")).stdout(Stdio::null()).status();
        assert!(status.unwrap().success(), "the program runs");
        // What is here needs nobody.
        drop(mount);
        bringing.join().unwrap()
    });
    for (name, bytes) in &files {
        assert!(std::fs::read(target.join(name)).unwrap() == *bytes, "{name}");
    }
    assert_eq!(brought.len(), files.len(), "each was waited for once");
    // The pages are the object's own.
    let frames = |path: PathBuf| Mapping::new(File::open(path).unwrap()).unwrap().frames().unwrap();
    let object = bench.object(&composefs_csi::image::verity::VerityDigest::of(&files[0].1));
    assert_eq!(frames(target.join("f0")), frames(object));
    files.len()
}

fn read(path: &Path, bytes: &[u8]) {
    assert!(std::fs::read(path).unwrap() == bytes);
}

fn mapping(path: &Path, bytes: &[u8]) {
    let frames = Mapping::new(File::open(path).unwrap()).unwrap().frames().unwrap();
    assert_eq!(frames.len(), bytes.len() / 4096);
    read(path, bytes);
}

fn sendfile(path: &Path, bytes: &[u8]) {
    let from = File::open(path).unwrap();
    let mut to = tempfile::tempfile().unwrap();
    assert_eq!(rustix::fs::sendfile(&to, &from, None, bytes.len()).unwrap(), bytes.len());
    let mut copy = Vec::new();
    to.rewind().unwrap();
    to.read_to_end(&mut copy).unwrap();
    assert!(copy == bytes);
}

/// copy_file_range(2) or splice(2), as the standard library sees fit.
fn copy(path: &Path, bytes: &[u8]) {
    let to = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(path, to.path()).unwrap();
    assert!(std::fs::read(to.path()).unwrap() == bytes);
}

fn direct(path: &Path, bytes: &[u8]) {
    let file = match File::options().read(true).custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => file,
        // Files with fs-verity cannot be read so, nor those of filesystems without it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return read(path, bytes),
        Err(error) => panic!("{error}"),
    };
    // At an address that is a multiple of a page.
    let mut buffer = vec![0; bytes.len() + 4096];
    let start = buffer.as_ptr().align_offset(4096);
    file.read_exact_at(&mut buffer[start..start + bytes.len()], 0).unwrap();
    assert!(buffer[start..start + bytes.len()] == *bytes);
}

fn by_path_descriptor(path: &Path, bytes: &[u8]) {
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    read(Path::new(&format!("/proc/self/fd/{}", place.as_raw_fd())), bytes);
}

/// Runs `command` with the file as its last argument, by a descriptor of the directory: others may not come there by path.
fn by_a_program(command: &mut Command, path: &Path, bytes: &[u8]) {
    let place = rustix::fs::open(path.parent().unwrap(), OFlags::PATH, Mode::empty()).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let output = command.arg(format!("/proc/self/fd/{}/{name}", place.as_raw_fd())).output().unwrap();
    assert!(output.stdout == bytes, "{}", String::from_utf8_lossy(&output.stderr));
}

fn another_user(path: &Path, bytes: &[u8]) {
    by_a_program(Command::new("cat").uid(1234).gid(1234), path, bytes);
}

fn namespaces(path: &Path, bytes: &[u8]) {
    by_a_program(Command::new("unshare").args(["-U", "-r", "-m", "-p", "-f", "cat"]), path, bytes);
}

fn clone_of_mount(path: &Path, bytes: &[u8]) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path.parent().unwrap(), flags).unwrap();
    let name = path.file_name().unwrap();
    let file = rustix::fs::openat(&clone, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut copy = Vec::new();
    File::from(file).read_to_end(&mut copy).unwrap();
    assert!(copy == bytes);
}

/// A writable overlay over the directory of `path`, while `work` runs with the file's path in it.
fn on_top(path: &Path, work: impl FnOnce(&Path)) {
    let lower = path.parent().unwrap();
    let place = tempfile::tempdir().unwrap();
    let memory = place.path().join("memory");
    let merged = place.path().join("merged");
    [&memory, &merged].into_iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let attach = |filesystem: &str, settings: &[(&str, &Path)], at: &Path| {
        let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for (key, value) in settings {
            fsconfig_set_string(context.as_fd(), *key, *value).unwrap();
        }
        fsconfig_create(context.as_fd()).unwrap();
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        move_mount(&mount, "", CWD, at, flags).unwrap();
    };
    attach("tmpfs", &[], &memory);
    let (upper, scratch) = (memory.join("upper"), memory.join("work"));
    [&upper, &scratch].into_iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
    let layers: [(&str, &Path); 3] = [("lowerdir", lower), ("upperdir", &upper), ("workdir", &scratch)];
    attach("overlay", &layers, &merged);
    work(&merged.join(path.file_name().unwrap()));
    for mount in [&merged, &memory] {
        unmount(mount, UnmountFlags::DETACH).unwrap();
    }
}

fn overlay(path: &Path, bytes: &[u8]) {
    on_top(path, |file| read(file, bytes));
}

fn copy_up(path: &Path, bytes: &[u8]) {
    on_top(path, |file| {
        File::options().append(true).open(file).unwrap().write_all(b"more").unwrap();
        assert!(std::fs::read(file).unwrap() == [bytes, b"more"].concat());
    });
}

fn truncate(path: &Path, bytes: &[u8]) {
    on_top(path, |file| {
        File::options().write(true).open(file).unwrap().set_len(100).unwrap();
        assert!(std::fs::read(file).unwrap() == bytes[..100]);
    });
}

fn rename(path: &Path, bytes: &[u8]) {
    on_top(path, |file| {
        let other = file.with_file_name("other");
        std::fs::rename(file, &other).unwrap();
        read(&other, bytes);
    });
}
