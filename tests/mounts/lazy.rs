//! Images that are mounted before their objects are here, on this machine's kernel: opens wait, get the right bytes or a
//! stated error, and readers can be killed. Without fs-verity, so what the kernel checks is in the virtual machines.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::thread::JoinHandleExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use composefs_csi::kind::Kind;
use composefs_csi::node::mount::{KernelMounter, MountError, Mounter as _};

use crate::support::bench::{bench, start, whole};
use crate::support::first_opens;
use crate::support::late::{Late, Noting};
use crate::support::mount::{Bench, content, mounts_below};
use crate::support::signal::{handle_usr1, interrupt};
use crate::support::tools;

const LENGTH: usize = 10_000;

fn lazily(bench: &Bench) -> KernelMounter {
    start(bench).lazily_without_verity()
}

/// `cat` of a file, waiting.
fn reader(path: &Path) -> Child {
    Command::new("cat").arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn errno(path: &Path) -> i32 {
    File::open(path).unwrap_err().raw_os_error().unwrap()
}

/// Waits for a condition; the deadline is for what never comes.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_first_open_waits_and_works_as_ever() {
    let bench = bench("lazy-opens");
    let mounter = lazily(&bench);
    mounter.can_be_lazy().unwrap();
    let program = std::fs::read(tools::installed("true")).unwrap();
    assert!(first_opens::all(&bench, &mounter, &program) > first_opens::WAYS.len());
    assert!(mounts_below(&bench.root).iter().all(|point| !point.to_string_lossy().contains(".waiting")));
}

#[test]
fn without_fs_verity_nothing_is_mounted_lazily() {
    let bench = bench("lazy-refused");
    let mounter = start(&bench);
    assert!(mounter.can_be_lazy().unwrap_err().contains("no fs-verity"));
    let late = Late::new(&bench, &[("a", content(1, LENGTH))]);
    let (sender, _wanted) = std::sync::mpsc::channel();
    let wanted = Noting::new(sender);
    let refused = mounter.mount_lazily(&whole(late.image), &bench.target("a"), [], wanted).unwrap_err();
    assert!(matches!(refused, MountError::NotLazily { .. }), "{refused}");
    assert_eq!(refused.kind(), Kind::Unsupported);
}

#[test]
fn many_readers_wait_side_by_side_and_each_object_is_asked_for_once() {
    let bench = bench("lazy-many");
    let mounter = lazily(&bench);
    let names: Vec<String> = (0..40).map(|number| format!("f{number}")).collect();
    let files: Vec<_> =
        names.iter().enumerate().map(|(seed, name)| (name.as_str(), content(seed as u8, LENGTH))).collect();
    let late = Late::new(&bench, &files);
    let target = bench.target("a");
    let (mount, wanted) = late.mount(&mounter, &target);
    let asked = std::thread::scope(|scope| {
        let target = &target;
        for (name, bytes) in &files {
            for _ in 0..8 {
                scope.spawn(move || assert!(std::fs::read(target.join(name)).unwrap() == *bytes, "{name}"));
            }
        }
        // Nothing comes before all are waited for: nobody stands behind another.
        let asked: Vec<_> = (0..files.len()).map(|_| wanted.recv().unwrap()).collect();
        for object in &asked {
            late.bring(object, mount.arrivals());
        }
        asked
    });
    assert_eq!(asked.len(), late.contents.len());
    assert!(wanted.try_recv().is_err(), "once each");
}

#[test]
fn what_comes_without_a_word_is_found_too() {
    let bench = bench("lazy-silent");
    let mounter = lazily(&bench);
    let (bytes, target) = (content(1, LENGTH), bench.target("a"));
    let late = Late::new(&bench, &[("a", bytes.clone())]);
    let (_mount, wanted) = late.mount(&mounter, &target);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| std::fs::read(target.join("a")).unwrap());
        let object = wanted.recv().unwrap();
        // By another process, which cannot say so.
        late.write(&object);
        assert!(reading.join().unwrap() == bytes);
    });
}

#[test]
fn a_killed_reader_goes_at_once_and_another_signal_does_not_disturb() {
    let bench = bench("lazy-signals");
    let mounter = lazily(&bench);
    let (bytes, target) = (content(1, LENGTH), bench.target("a"));
    let late = Late::new(&bench, &[("a", bytes.clone()), ("b", content(2, LENGTH))]);
    let (mount, wanted) = late.mount(&mounter, &target);
    let mut killed = reader(&target.join("a"));
    wanted.recv().unwrap();
    killed.kill().unwrap();
    // Without an answer it would wait for the object, which does not come.
    killed.wait().unwrap();
    handle_usr1();
    let path = target.join("b");
    let reading = std::thread::spawn(move || std::fs::read(path));
    let object = wanted.recv().unwrap();
    for _ in 0..5 {
        interrupt(reading.as_pthread_t());
        std::thread::sleep(Duration::from_millis(30));
    }
    assert!(!reading.is_finished(), "it waits on");
    late.bring(&object, mount.arrivals());
    assert!(reading.join().unwrap().unwrap() == content(2, LENGTH));
    // The first one's object was not lost.
    let again = reader(&target.join("a"));
    let object = wanted.recv().unwrap();
    late.bring(&object, mount.arrivals());
    assert!(again.wait_with_output().unwrap().status.success());
}

#[test]
fn failures_are_told_by_their_kind_and_never_as_a_missing_file() {
    let bench = bench("lazy-failures");
    let mounter = lazily(&bench);
    let target = bench.target("a");
    let late = Late::new(&bench, &[("a", content(1, LENGTH)), ("b", content(2, LENGTH))]);
    let (mount, wanted) = late.mount(&mounter, &target);
    let kinds = [
        (Kind::Transient, libc::EHOSTUNREACH),
        (Kind::Exhausted, libc::ENOSPC),
        (Kind::Corrupt, libc::EIO),
        (Kind::NotFound, libc::EIO),
    ];
    for (kind, expected) in kinds {
        let found = std::thread::scope(|scope| {
            let opening = scope.spawn(|| errno(&target.join("a")));
            while !opening.is_finished() {
                // The kernel asks several times before it gives up.
                if wanted.recv_timeout(Duration::from_millis(50)).is_ok() {
                    mount.fail(kind);
                }
            }
            opening.join().unwrap()
        });
        assert_eq!(found, expected, "{kind:?}");
    }
    // What comes after that is as good as ever.
    let object = *late.contents.iter().find(|(_, bytes)| **bytes == content(1, LENGTH)).unwrap().0;
    late.bring(&object, mount.arrivals());
    assert!(std::fs::read(target.join("a")).unwrap() == content(1, LENGTH));
    let (aborted, opened) = std::thread::scope(|scope| {
        let opening = scope.spawn(|| errno(&target.join("b")));
        wanted.recv().unwrap();
        let opened = File::open(target.join("a")).unwrap();
        drop(mount);
        (opening.join().unwrap(), opened)
    });
    assert!([libc::ECONNABORTED, libc::ENOTCONN].contains(&aborted), "{aborted}");
    assert_eq!(errno(&target.join("b")), libc::ENOTCONN);
    assert!(
        std::io::read_to_string(opened).unwrap().as_bytes() == content(1, LENGTH),
        "what is open goes on"
    );
    // Healed by arriving.
    late.contents.keys().for_each(|object| late.write(object));
    assert!(std::fs::read(target.join("b")).unwrap() == content(2, LENGTH));
}

#[test]
fn an_image_whose_command_has_died_is_mounted_lazily_again() {
    let bench = bench("lazy-again");
    let mounter = lazily(&bench);
    let (first, second, third) = (bench.target("first"), bench.target("second"), bench.target("third"));
    let late = Late::new(&bench, &[("a", content(1, LENGTH))]);
    let (mount, _) = late.mount(&mounter, &first);
    drop(mount);
    assert_eq!(errno(&first.join("a")), libc::ENOTCONN);
    let (mount, wanted) = late.mount(&mounter, &second);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| std::fs::read(second.join("a")).unwrap());
        let object = wanted.recv().unwrap();
        late.bring(&object, mount.arrivals());
        assert!(reading.join().unwrap() == content(1, LENGTH));
    });
    assert!(std::fs::read(first.join("a")).unwrap() == content(1, LENGTH), "the older mount as well");
    assert!(!mount.is_over());
    // Complete, the image is mounted as any other.
    mounter.mount(&whole(late.image), &third).unwrap();
    assert!(std::fs::read(third.join("a")).unwrap() == content(1, LENGTH));
    for target in [&first, &second, &third] {
        mounter.unmount(target).unwrap();
    }
    mounter.release(&late.image).unwrap();
    until("nobody answers for what nobody shows", || mount.is_over());
    assert_eq!(mounts_below(&bench.root).len(), 1);
}

#[test]
fn a_target_that_is_taken_leaves_nothing_behind() {
    let bench = bench("lazy-taken");
    let mounter = lazily(&bench);
    let late = Late::new(&bench, &[("a", content(1, LENGTH))]);
    let target = bench.target("a");
    let (mount, _wanted) = late.mount(&mounter, &target);
    let before = bench.leftovers();
    let (sender, _) = std::sync::mpsc::channel();
    let noting = Noting::new(sender);
    let objects = late.contents.keys().copied().collect::<Vec<_>>();
    let refused = mounter.mount_lazily(&whole(late.image), &target, objects, noting).unwrap_err();
    assert!(matches!(refused, MountError::Occupied { .. }), "{refused}");
    assert_eq!(bench.leftovers(), before);
    let kind = std::fs::File::open(target.join("nothing")).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::NotFound, "a name that the image does not have");
    drop(mount);
}
