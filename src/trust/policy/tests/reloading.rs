//! Files that change under a running node: real files, real links, no waiting but for the second that a look lasts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::key;
use crate::oci::digest::Digest;
use crate::trust::policy::{Governing, Policies};

const REJECT: &str = r#"{"default":[{"type":"reject"}]}"#;
const ACCEPT: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const KEYED: &str = r#"{"default":[{"type":"sigstoreSigned","keyPath":"cosign.pub"}]}"#;

/// What governs, in a word, and its digest.
fn governing(policies: &Policies, namespace: Option<&str>) -> (String, Option<Digest>) {
    match policies.governing(namespace) {
        Governing::Nothing => ("nothing".to_owned(), None),
        Governing::Broken { why, .. } => (why, None),
        Governing::Policy { policy, digest } => {
            let rule = policy.rule(&"a.b/c:1".parse().unwrap(), None);
            (rule.requirements[0].check.kind().to_owned(), Some(digest))
        }
    }
}

/// A look is good for a second.
fn wait() {
    std::thread::sleep(Duration::from_millis(1050));
}

/// As kubelet updates a mounted ConfigMap: a new directory, and a link that is swapped.
fn mount(volume: &Path, version: u32, files: &[(&str, &[u8])]) {
    let data = volume.join(format!("..2026_{version}"));
    fs::create_dir(&data).unwrap();
    for (name, content) in files {
        fs::write(data.join(name), content).unwrap();
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link).unwrap();
        }
    }
    symlink(format!("..2026_{version}"), volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[test]
fn a_mounted_config_map_that_changes() {
    let volume = tempfile::tempdir().unwrap();
    let volume = volume.path();
    mount(volume, 1, &[("policy.json", REJECT.as_bytes())]);
    let policies = Policies::new(Some(volume.join("policy.json")), None);
    let (kind, first) = governing(&policies, Some("any"));
    assert_eq!(kind, "reject");
    mount(volume, 2, &[("policy.json", ACCEPT.as_bytes())]);
    wait();
    let (kind, second) = governing(&policies, None);
    assert_eq!(kind, "insecureAcceptAnything");
    assert_ne!(first, second);
    // The same text again is the same policy.
    mount(volume, 3, &[("policy.json", REJECT.as_bytes())]);
    wait();
    assert_eq!(governing(&policies, None), ("reject".to_owned(), first));
}

#[test]
fn keys_change_without_the_policy() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, public) = (directory.path().join("policy.json"), directory.path().join("cosign.pub"));
    fs::write(&policy, KEYED).unwrap();
    fs::write(&public, key()).unwrap();
    let policies = Policies::new(Some(policy), None);
    let (kind, first) = governing(&policies, None);
    assert_eq!(kind, "sigstoreSigned");
    fs::write(&public, key()).unwrap();
    wait();
    let (kind, second) = governing(&policies, None);
    assert_eq!(kind, "sigstoreSigned");
    assert_ne!(first, second, "another key is another policy");
    fs::remove_file(&public).unwrap();
    wait();
    let (why, _) = governing(&policies, None);
    assert!(why.contains("default[0].keyPath: cannot read") && why.contains("cosign.pub"), "{why}");
}

#[test]
fn a_broken_policy_opens_nothing_until_it_is_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.json");
    let policies = Policies::new(Some(file.clone()), None);
    let (why, _) = governing(&policies, None);
    assert!(
        why.contains("policy.json") && why.contains("No such file"),
        "a missing file is not no policy: {why}"
    );
    for (content, words) in [(ACCEPT, "insecureAcceptAnything"), ("{", "not valid JSON"), (REJECT, "reject")]
    {
        fs::write(&file, content).unwrap();
        wait();
        let (found, _) = governing(&policies, None);
        assert!(found.contains(words), "{content}: {found}");
    }
    // Neither does one that is no file at all, and it does not hang.
    fs::remove_file(&file).unwrap();
    let fifo = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    wait();
    let (found, _) = governing(&policies, None);
    assert!(found.contains("not a regular file"), "{found}");
}

#[test]
fn a_namespace_has_its_own_policy_or_the_nodes() {
    let directory = tempfile::tempdir().unwrap();
    let (file, own) = (directory.path().join("policy.json"), directory.path().join("namespaces"));
    fs::create_dir(&own).unwrap();
    fs::write(&file, REJECT).unwrap();
    fs::write(own.join("team-a.json"), ACCEPT).unwrap();
    fs::write(own.join("team-b.json"), "{").unwrap();
    let policies = Policies::new(Some(file), Some(own.clone()));
    assert_eq!(governing(&policies, None).0, "reject");
    assert_eq!(governing(&policies, Some("default")).0, "reject");
    assert_eq!(governing(&policies, Some("team-a")).0, "insecureAcceptAnything");
    let (why, _) = governing(&policies, Some("team-b"));
    assert!(why.contains("team-b.json"), "never the node's instead: {why}");
    for name in ["../policy", "Team-A", "", "a.b", "-a", "a/b", "a\0", &"x".repeat(64)] {
        let (why, _) = governing(&policies, Some(name));
        assert!(why.contains("DNS label"), "{name:?}: {why}");
    }
    // Its own file goes: back to the node's. The directory goes: something is wrong.
    fs::remove_file(own.join("team-a.json")).unwrap();
    assert_eq!(governing(&policies, Some("team-a")).0, "reject");
    fs::remove_dir_all(&own).unwrap();
    let (why, _) = governing(&policies, Some("team-a"));
    assert!(why.contains("--policy-dir"), "{why}");
}

#[test]
fn without_files_nothing_governs() {
    assert_eq!(governing(&Policies::new(None, None), Some("a")).0, "nothing");
    let directory = tempfile::tempdir().unwrap();
    let only = Policies::new(None, Some(directory.path().to_owned()));
    assert_eq!(governing(&only, Some("a")).0, "nothing");
    fs::write(directory.path().join("a.json"), REJECT).unwrap();
    assert_eq!(governing(&only, Some("a")).0, "reject");
}
