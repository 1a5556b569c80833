//! What real tools push as artifacts, mounted by the program from a real registry, file by file as the tool itself
//! gets it back: oras (files and packed directories) and helm (charts). Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use composefs_csi::image::entry::EntryKind;

use crate::support::driver::Machine;
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::{debian, helm};
use crate::support::unpacked;

/// A directory as people have them: names that are not ASCII, an empty file and directory, links, a copy, programs.
pub fn model(at: &Path) {
    fs::create_dir_all(at.join("sub/deep")).unwrap();
    fs::create_dir_all(at.join("empty")).unwrap();
    fs::create_dir_all(at.join("日本語")).unwrap();
    let weights: Vec<u8> = (0..400_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, content) in [
        ("model.safetensors", &weights[..]),
        ("copy.safetensors", &weights[..]),
        ("config.json", b"{\"architectures\": []}"),
        ("empty.txt", b""),
        ("sub/deep/data.txt", b"deep"),
        ("日本語/ファイル é.txt", b"unicode"),
        ("run.sh", b"#!/bin/sh\necho hello\n"),
    ] {
        fs::write(at.join(name), content).unwrap();
    }
    fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("config.json", at.join("link")).unwrap();
}

/// What a tree holds, by path: what cannot differ between the tool's copy and a read-only mount. The tool's copy has
/// the owner and the mask of who called it.
pub fn content(root: &Path) -> BTreeMap<String, EntryKind> {
    let entries = unpacked::entries(root).into_iter();
    entries
        .filter(|entry| !entry.path.is_empty())
        .map(|entry| (String::from_utf8(entry.path.to_vec()).unwrap(), entry.kind))
        .collect()
}

/// An artifact that the program has mounted.
pub struct Mounted {
    machine: Machine,
    pub target: tempfile::TempDir,
}

impl Mounted {
    pub fn new(registry: &Registry, reference: &str) -> Self {
        let machine = Machine::new(&[&format!("--insecure-registry={}", registry.host())]);
        let target = tempfile::tempdir().unwrap();
        run(&mut machine.command(&["mount", reference, target.path().to_str().unwrap()]));
        Self { machine, target }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run(&mut self.machine.command(&["unmount", self.target.path().to_str().unwrap()]));
    }
}

pub fn oras(directory: &Path, arguments: &[&str]) {
    run(Command::new(debian("oras", "oras")).current_dir(directory).args(arguments));
}

fn pushed_by_oras(registry: &Registry, name: &str, what: &[&str]) -> (Mounted, tempfile::TempDir) {
    let source = tempfile::tempdir().unwrap();
    model(source.path());
    let reference = format!("{}/{name}:1", registry.host());
    let push = ["push", "--plain-http", "--artifact-type", "application/vnd.example.model", &reference];
    oras(source.path(), &[&push[..], what].concat());
    let pulled = tempfile::tempdir().unwrap();
    oras(pulled.path(), &["pull", "--plain-http", &reference]);
    (Mounted::new(registry, &reference), pulled)
}

#[test]
fn files_and_directories_of_oras_are_as_oras_pulls_them() {
    let registry = Registry::start(Options::default());
    for (name, what) in [
        (
            "files",
            &[
                "config.json",
                "model.safetensors:application/x.weights",
                "copy.safetensors",
                "empty.txt",
                "日本語/ファイル é.txt",
                "sub/deep/data.txt",
            ][..],
        ),
        ("directories", &["sub", "empty", "日本語", "run.sh"][..]),
        ("whole", &["."][..]),
    ] {
        let (mounted, pulled) = pushed_by_oras(&registry, name, what);
        let found = content(mounted.target.path());
        assert_eq!(found, content(pulled.path()), "{name}");
        assert!(found.len() >= what.len(), "{name}: {found:?}");
        if name == "whole" {
            let mode = fs::metadata(mounted.target.path().join("run.sh")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o555);
        }
    }
}

#[test]
fn a_chart_of_helm_is_the_file_that_helm_pulls() {
    let registry = Registry::start(Options::default());
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let helm = |arguments: &[&str]| {
        run(Command::new(helm()).current_dir(at).env("HOME", at).args(arguments));
    };
    fs::create_dir_all(at.join("demo/templates")).unwrap();
    fs::write(at.join("demo/Chart.yaml"), "apiVersion: v2\nname: demo\nversion: 0.1.0+build.5\n").unwrap();
    fs::write(at.join("demo/templates/a.yaml"), "{}\n").unwrap();
    helm(&["package", "demo"]);
    let repository = format!("oci://{}/charts", registry.host());
    helm(&["push", "--plain-http", "demo-0.1.0+build.5.tgz", &repository]);
    fs::create_dir(at.join("pulled")).unwrap();
    let chart = format!("{repository}/demo");
    helm(&["pull", "--plain-http", "--version", "0.1.0+build.5", "--destination", "pulled", &chart]);
    let mounted = Mounted::new(&registry, &format!("{}/charts/demo:0.1.0_build.5", registry.host()));
    assert_eq!(content(mounted.target.path()), content(&at.join("pulled")));
}
