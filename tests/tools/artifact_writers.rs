//! Artifacts that other tools than oras and helm make, mounted by the program from a real registry, file by file as the tool
//! itself gets them back: modelpack-client (raw files and archives of each compression), oras-py, podman. Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use composefs_csi::image::entry::EntryKind;

use super::artifacts::{Mounted, content, model, oras};
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::{debian, debian_set, python};

/// Files of [`model`] that are not in a directory of their own, one of them twice.
const FILES: [&str; 5] = ["model.safetensors", "copy.safetensors", "config.json", "empty.txt", "run.sh"];

fn mode(mounted: &Mounted, path: &str) -> u32 {
    fs::metadata(mounted.target.path().join(path)).unwrap().permissions().mode() & 0o7777
}

fn modelpack(at: &Path, arguments: &[&str]) {
    run(Command::new(python("modelpack")).current_dir(at).env("HOME", at).arg("--insecure").args(arguments));
}

#[test]
fn models_of_modelpack_client_are_as_it_pulls_them() {
    let registry = Registry::start(Options::default());
    let source = tempfile::tempdir().unwrap();
    model(source.path());
    // It refuses links.
    fs::remove_file(source.path().join("link")).unwrap();
    fs::write(
        source.path().join("config"),
        r#"{"descriptor":{"name":"demo","version":"1"},"config":{"format":"safetensors"}}"#,
    )
    .unwrap();
    for form in ["raw", "tar", "tar+gzip", "tar+zstd"] {
        let to = format!("{}/models/{}:1", registry.host(), form.replace('+', "-"));
        let mut push = vec!["push".to_owned(), to.clone(), "--config=config".to_owned()];
        push.extend(FILES.iter().map(|name| format!("--layer={name}")));
        let directories = if form == "raw" { &[][..] } else { &["sub", "日本語", "empty"] };
        let layer = |name: &&str| format!("--layer={name}:application/vnd.cncf.model.dataset.v1.{form}");
        push.extend(directories.iter().map(layer));
        modelpack(source.path(), &push.iter().map(String::as_str).collect::<Vec<_>>());
        let pulled = tempfile::tempdir().unwrap();
        modelpack(pulled.path(), &["pull", &to, pulled.path().to_str().unwrap()]);
        let mounted = Mounted::new(&registry, &to);
        let found = content(mounted.target.path());
        assert_eq!(found, content(pulled.path()), "{form}");
        assert!(found.len() >= FILES.len() + directories.len(), "{form}: {found:?}");
        assert_eq!((mode(&mounted, "run.sh"), mode(&mounted, "config.json")), (0o555, 0o444), "{form}");
    }
}

#[test]
fn files_of_oras_py_are_as_it_pulls_them_and_its_directories_as_oras_pulls_them() {
    const CALL: &str = "import sys, oras.client\n\
        client = oras.client.OrasClient(insecure=True)\n\
        verb, target, *what = sys.argv[1:]\n\
        client.push(target=target, files=what) if verb == 'push' else client.pull(target=target, outdir=what[0])\n";
    let registry = Registry::start(Options::default());
    let source = tempfile::tempdir().unwrap();
    model(source.path());
    let to = format!("{}/files:1", registry.host());
    let client = |at: &Path, arguments: &[&str]| {
        let mut command = Command::new(python("python3"));
        run(command.current_dir(at).env("HOME", at).args(["-c", CALL]).args(arguments));
    };
    client(source.path(), &[&["push", &to][..], &FILES, &["sub"]].concat());
    let (own, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    client(own.path(), &["pull", &to, own.path().to_str().unwrap()]);
    oras(theirs.path(), &["pull", "--plain-http", &to]);
    let mounted = Mounted::new(&registry, &to);
    let found = content(mounted.target.path());
    assert_eq!(found, content(theirs.path()));
    // It does not say that it has packed the directory, so that only it unpacks it: docs/artifacts.md names that.
    let without_sub = |all: BTreeMap<String, EntryKind>| -> BTreeMap<_, _> {
        all.into_iter().filter(|(path, _)| path != "sub" && !path.starts_with("sub/")).collect()
    };
    assert!(matches!(found["sub"], EntryKind::Object(..)), "a file: {:?}", found["sub"]);
    let found = without_sub(found);
    assert_eq!((found.len(), &found), (FILES.len(), &without_sub(content(own.path()))));
}

#[test]
fn artifacts_of_podman_are_as_it_extracts_them() {
    let registry = Registry::start(Options::default());
    // A store of podman's is not for a filesystem in memory.
    let (source, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    model(source.path());
    let (engine, storage) = (at.path().join("containers.conf"), at.path().join("storage.conf"));
    // It looks for its helpers at its start, whatever it is to do.
    let helpers = debian_set("containers").join("root/usr/lib/podman");
    fs::write(&engine, format!("[engine]\nhelper_binaries_dir = [{helpers:?}]\n")).unwrap();
    fs::write(&storage, "[storage]\ndriver = \"vfs\"\n").unwrap();
    let podman = |arguments: &[&str]| {
        let mut podman = Command::new(debian("containers", "podman"));
        podman.env("CONTAINERS_STORAGE_CONF", &storage).env("CONTAINERS_CONF", &engine);
        podman.arg("--root").arg(at.path().join("root")).arg("--runroot").arg(at.path().join("run"));
        run(podman.current_dir(source.path()).arg("artifact").args(arguments));
    };
    let to = format!("{}/model:1", registry.host());
    let unicode = "日本語/ファイル é.txt";
    podman(&[&["add", "--type=application/vnd.example.model", &to][..], &FILES, &[unicode]].concat());
    podman(&["push", "--tls-verify=false", &to]);
    let extracted = tempfile::tempdir().unwrap();
    podman(&["extract", &to, extracted.path().to_str().unwrap()]);
    let mounted = Mounted::new(&registry, &to);
    let found = content(mounted.target.path());
    assert_eq!((found.len(), &found), (FILES.len() + 1, &content(extracted.path())));
    assert!(found.contains_key("ファイル é.txt"), "podman keeps base names only: {found:?}");
    // No tool says who may execute what.
    assert_eq!(mode(&mounted, "run.sh"), 0o444);
}
