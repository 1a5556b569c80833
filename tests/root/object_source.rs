//! `--object-source` where the kernel cannot measure: nothing is taken, which is said, and the pull is as ever. With
//! fs-verity: `vm/host.rs`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use composefs_csi::image::verity::VerityDigest;

use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};

fn object(directory: &Path, digest: &VerityDigest) -> PathBuf {
    let hex = digest.hex();
    directory.join(&hex[..2]).join(&hex[2..])
}

#[test]
fn without_fs_verity_sources_are_named_and_not_used() {
    let content = noise("file", 20_000);
    let layout = Layout::of(&Image::new(vec![archive(&[("file", &content)])]));
    let machine = Machine::new(&[]);
    // A filesystem that has no fs-verity on any kernel.
    let disk = machine.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&disk).status().unwrap();
    assert!(mounted.success());
    let (host, digest) = (disk.join("host"), VerityDigest::of(&content));
    let there = object(&host, &digest);
    std::fs::create_dir_all(there.parent().unwrap()).unwrap();
    std::fs::write(&there, &content).unwrap();
    let state = disk.join("state");
    let (source, state_dir) = (format!("--object-source={}", host.display()), state.display().to_string());
    let run = |source: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_composefs-csi"));
        command.args(["--state-dir", &state_dir, "--without-policy=accept", "--log-level=warn"]);
        let output = command.args(["pull", &layout.reference("latest"), source]).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        log
    };
    let log = run(&source);
    assert!(log.contains("an object source is not used") && log.contains("no fs-verity"), "{log}");
    let ours = object(&state.join("store/objects"), &digest);
    assert_eq!(std::fs::read(&ours).unwrap(), content);
    assert_ne!(std::fs::metadata(&ours).unwrap().ino(), std::fs::metadata(&there).unwrap().ino());
    // One that is not there prevents nothing.
    let log = run("--object-source=/none");
    assert!(log.contains("an object source cannot be opened") && log.contains("/none"), "{log}");
}
