//! Faithful and canonical trees.

use super::fixtures::*;
use super::*;

const ALLOWLIST: Rules = Rules::Canonical { xattrs: XattrRule::AllowlistOnly };
const KEEP_USER: Rules = Rules::Canonical { xattrs: XattrRule::KeepUser };

fn with_xattrs(mut entry: LayerEntry, names: &[&str]) -> LayerEntry {
    let pair = |name: &&str| (name.as_bytes().into(), b"v".as_slice().into());
    entry.meta.xattrs = names.iter().map(pair).collect();
    entry
}

fn root_line(rules: Rules, entries: Vec<LayerEntry>) -> String {
    dump(&build(rules, &[entries]).unwrap()).lines().next().unwrap().to_owned()
}

#[test]
fn a_faithful_root_is_the_tar_s_or_plain() {
    assert_eq!(root_line(Rules::Faithful, vec![]), "/ 0 40755 2 0 0 0 0.0 - - -");
    assert_eq!(root_line(Rules::Faithful, vec![dir(""), dir("usr")]), "/ 0 40700 3 1 2 0 7.0 - - -");
}

#[test]
fn a_canonical_root_is_usr_s() {
    let mut usr = with_xattrs(dir("usr"), &["security.capability"]);
    usr.meta.mtime = Mtime { secs: 99, nanos: 5 };
    let line = root_line(ALLOWLIST, vec![dir(""), usr]);
    assert_eq!(line, "/ 0 40700 3 1 2 0 99.5 - - - security.capability=v");
    assert_eq!(build(ALLOWLIST, &[vec![dir("")]]).unwrap_err(), TreeError::NoUsr);
    assert_eq!(build(ALLOWLIST, &[vec![symlink("usr", "x")]]).unwrap_err(), TreeError::NoUsr);
}

#[test]
fn a_canonical_run_is_empty_and_as_old_as_usr() {
    let mut usr = dir("usr");
    usr.meta.mtime = Mtime { secs: 99, nanos: 5 };
    let entries = vec![usr, dir("run"), file("run/x", "1"), link("kept", "run/x"), file("run/y", "2")];
    let tree = build(ALLOWLIST, std::slice::from_ref(&entries)).unwrap();
    assert_eq!(view(&tree), "kept=1 run/ usr/");
    assert_eq!(tree.inodes(), 4);
    assert!(dump(&tree).contains("/run 0 40700 2 1 2 0 99.5 "));
    assert_eq!(fold(&[entries]), "kept=1 run/ run/x==kept run/y=2 usr/");
}

#[test]
fn each_rule_keeps_its_extended_attributes() {
    let names = ["security.capability", "security.selinux", "system.posix_acl_access"];
    let more = ["trusted.overlay.opaque", "trusted.x", "user.overlay.opaque", "user.x"];
    let entries = vec![with_xattrs(dir("usr"), &[&names[..], &more[..]].concat())];
    let kept = |rules| {
        let line = dump(&build(rules, std::slice::from_ref(&entries)).unwrap());
        let line = line.lines().last().unwrap().to_owned();
        line.split(' ').skip(11).map(|pair| pair.trim_end_matches("=v").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kept(ALLOWLIST), ["security.capability"]);
    assert_eq!(kept(KEEP_USER), ["security.capability", "user.overlay.opaque", "user.x"]);
    assert_eq!(kept(Rules::Faithful), ["security.capability", "system.posix_acl_access", "user.x"]);
    assert_eq!(kept(Rules::Verbatim), kept(Rules::Faithful));
}

#[test]
fn times_before_1970_become_1970() {
    let mut old = file("f", "x");
    old.meta.mtime = Mtime { secs: -1, nanos: 999 };
    assert!(dump(&build(Rules::Faithful, &[vec![old]]).unwrap()).contains("/f 1 100644 1 1 2 0 0.0 "));
}

#[test]
fn objects_are_listed_and_counted() {
    let object = |path: &str| entry(path, EntryKind::Object(VerityDigest([7; 32]), 100));
    let tree =
        build(Rules::Faithful, &[vec![object("a"), object("b"), link("c", "a"), file("d", "12")]]).unwrap();
    assert_eq!(tree.objects().collect::<Vec<_>>(), [(VerityDigest([7; 32]), 100); 2]);
    assert_eq!(tree.file_bytes(), 202);
    assert_eq!(tree.inodes(), 4);
}

#[test]
fn what_leads_out_of_the_image_is_left_out() {
    let special = [EntryKind::CharDevice(1, 3), EntryKind::BlockDevice(8, 0), EntryKind::Fifo];
    for kind in special {
        // Its names are removed, and what it replaced stays removed: in its own layer, in a lower one, with a tree.
        let lower = vec![file("a", "old"), file("b/c", "old"), file("kept", "1")];
        let upper = vec![entry("a", kind.clone()), link("d/again", "a"), entry("b", kind.clone())];
        let tree = build(Rules::Faithful, &[lower.clone(), upper.clone()]).unwrap();
        assert_eq!((view(&tree).as_str(), tree.inodes(), tree.left_out()), ("d/? kept=1", 3, 3), "{kind:?}");
        // A later entry at the same path stays.
        let last = vec![file("a", "new")];
        let tree = build(Rules::Faithful, &[lower.clone(), upper.clone(), last]).unwrap();
        assert_eq!(view(&tree), "a=new d/? kept=1", "{kind:?}");
        let tree = build(Rules::Verbatim, &[lower, upper]).unwrap();
        assert_eq!((tree.inodes(), tree.left_out()), (5, 0), "{kind:?}");
    }
}

#[test]
fn a_whiteout_device_hides_as_under_overlayfs_and_is_not_seen() {
    let hides = || entry("d", EntryKind::CharDevice(0, 0));
    let layers = [vec![file("d/f", "1"), file("e", "2")], vec![hides(), link("other", "d")]];
    assert_eq!(view(&build(Rules::Faithful, &layers).unwrap()), "e=2");
    assert!(matches!(build(Rules::Verbatim, &layers), Err(TreeError::LinkedWhiteout { .. })));
}
