//! What is taken out of programs, and what a tree gives to pods.

use proptest::prelude::*;

use super::fixtures::*;
use super::*;

const UNPRIVILEGED: Rules = Rules::Reduced { to: Reduction::Unprivileged, special_files: false };
const NOEXEC: Rules = Rules::Reduced { to: Reduction::NotExecutable, special_files: false };

/// user::rwx, user:1000:r-x, group::r-x, mask::rwx, other::--x, as the kernel keeps it.
fn acl() -> Vec<u8> {
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [(0x01, 7, none), (0x02, 5, 1000), (0x04, 5, none), (0x10, 7, none), (0x20, 1, none)];
    [&2u32.to_le_bytes()[..], &entries.map(entry).concat()].concat()
}

fn with(mut entry: LayerEntry, mode: u32, xattrs: &[(&str, &[u8])]) -> LayerEntry {
    entry.meta.mode = mode;
    entry.meta.xattrs =
        xattrs.iter().map(|(name, value)| (name.as_bytes().into(), (*value).into())).collect();
    entry
}

fn object(path: &str) -> LayerEntry {
    entry(path, EntryKind::Object(VerityDigest([7; 32]), 100))
}

/// Mode and names of attributes of each path.
fn modes(rules: Rules, entries: &[LayerEntry]) -> Vec<String> {
    let dump = dump(&build(rules, &[entries.to_vec()]).unwrap());
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let names = fields[11..].iter().map(|pair| pair.split('=').next().unwrap());
        [fields[0], fields[2]].into_iter().chain(names).collect::<Vec<_>>().join(" ")
    };
    dump.lines().skip(1).map(line).collect()
}

fn entries() -> Vec<LayerEntry> {
    let (capability, acl): (&[u8], _) = (b"\x01cap", acl());
    vec![
        with(dir("d"), 0o7775, &[("system.posix_acl_access", &acl), ("user.x", b"v")]),
        with(file("d/script"), 0o4755, &[]),
        with(object("d/both"), 0o6711, &[("security.capability", capability), ("user.x", b"v")]),
        with(object("d/capable"), 0o755, &[("security.capability", capability)]),
        with(object("d/listed"), 0o644, &[("system.posix_acl_access", &acl)]),
        with(object("d/plain"), 0o1644, &[("user.x", b"v")]),
        with(symlink("d/link", "both"), 0o777, &[]),
    ]
}

fn file(path: &str) -> LayerEntry {
    super::fixtures::file(path, "#!/bin/sh")
}

#[test]
fn privileges_of_files_go_and_nothing_else() {
    let acl = "system.posix_acl_access";
    let kept = [format!("/d 47775 {acl} user.x"), "/d/both 106711 security.capability user.x".into()];
    let faithful = modes(Rules::Faithful, &entries());
    assert_eq!(faithful[..2], kept);
    let expected = [
        kept[0].clone(),
        "/d/both 100711 user.x".into(),
        "/d/capable 100755".into(),
        "/d/link 120777".into(),
        format!("/d/listed 100644 {acl}"),
        "/d/plain 101644 user.x".into(),
        "/d/script 100755".into(),
    ];
    assert_eq!(modes(UNPRIVILEGED, &entries()), expected);
    let tree = build(UNPRIVILEGED, &[entries()]).unwrap();
    assert_eq!(tree.reduced(), 3, "script, both, capable");
}

#[test]
fn without_execution_no_bit_of_a_file_allows_it() {
    let acl_name = "system.posix_acl_access";
    let expected = [
        format!("/d 47775 {acl_name} user.x"),
        "/d/both 100600 user.x".into(),
        "/d/capable 100644".into(),
        "/d/link 120777".into(),
        format!("/d/listed 100644 {acl_name}"),
        "/d/plain 101644 user.x".into(),
        "/d/script 100644".into(),
    ];
    assert_eq!(modes(NOEXEC, &entries()), expected);
    // Those of directories say who may enter.
    let tree = build(NOEXEC, &[entries()]).unwrap();
    let value = |path: &str| {
        let text = dump(&tree);
        let line = text.lines().find(|line| line.starts_with(path)).unwrap().to_owned();
        line.split(&format!("{acl_name}=")).nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    assert_ne!(value("/d "), value("/d/listed "));
    assert_eq!(value("/d ").matches("\\x07").count(), 2);
    assert_eq!(value("/d/listed ").matches("\\x06").count(), 2, "{}", value("/d/listed "));
    for odd in [&b""[..], b"\x02\0\0\0\x01", b"\x03\0\0\0"] {
        let odd = vec![with(object("f"), 0o644, &[(acl_name, odd)])];
        assert_eq!(modes(NOEXEC, &odd), ["/f 100644"], "what is no ACL is left out");
    }
}

#[test]
fn powers_name_the_first_of_each_sort() {
    let none = vec![with(object("a"), 0o644, &[]), with(dir("b"), 0o7777, &[])];
    assert_eq!(build(Rules::Verbatim, &[none]).unwrap().powers(), Powers::default());
    let mut all = entries();
    all.push(entry("z/pipe", EntryKind::Fifo));
    all.push(entry("z/null", EntryKind::CharDevice(1, 3)));
    let powers = |rules| build(rules, std::slice::from_ref(&all)).unwrap().powers();
    let some = |path: &str| Some(path.to_owned());
    let both = some("/d/both");
    let verbatim =
        Powers { special_file: some("/z/null"), privileged_file: both.clone(), program: both.clone() };
    assert_eq!(powers(Rules::Verbatim), verbatim);
    assert_eq!(powers(Rules::Faithful), Powers { special_file: None, ..verbatim });
    let program = Powers { program: both, ..Powers::default() };
    assert_eq!(powers(UNPRIVILEGED), program);
    assert_eq!(powers(NOEXEC), Powers::default());
    let listed = vec![with(object("f"), 0o644, &[("system.posix_acl_access", &acl())])];
    let program = Powers { program: some("/f"), ..Powers::default() };
    assert_eq!(build(UNPRIVILEGED, &[listed]).unwrap().powers(), program, "an ACL alone allows it");
}

fn names(tree: &CheckedTree) -> Vec<String> {
    dump(tree).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Every reduction keeps names, objects and sizes, leaves no power that it takes, and makes the same again.
    #[test]
    fn a_reduction_takes_powers_alone(
        files in prop::collection::vec((0u32..0o10000, any::<bool>(), any::<bool>(), any::<bool>()), 1..20),
    ) {
        let acl = acl();
        let entries: Vec<LayerEntry> = files.iter().enumerate().map(|(at, (mode, capable, listed, inline))| {
            let mut xattrs: Vec<(&str, &[u8])> = Vec::new();
            xattrs.extend(capable.then_some(("security.capability", &b"c"[..])));
            xattrs.extend(listed.then_some(("system.posix_acl_access", &acl[..])));
            let path = format!("f{at}");
            with(if *inline { file(&path) } else { object(&path) }, *mode, &xattrs)
        }).collect();
        let whole = build(Rules::Faithful, std::slice::from_ref(&entries)).unwrap();
        for to in [Reduction::Unprivileged, Reduction::NotExecutable] {
            let rules = Rules::Reduced { to, special_files: false };
            let reduced = build(rules, std::slice::from_ref(&entries)).unwrap();
            let powers = reduced.powers();
            prop_assert_eq!(&powers.privileged_file, &None);
            prop_assert!(to == Reduction::Unprivileged || powers.program.is_none());
            prop_assert_eq!(reduced.objects().collect::<Vec<_>>(), whole.objects().collect::<Vec<_>>());
            prop_assert_eq!((reduced.inodes(), reduced.file_bytes()), (whole.inodes(), whole.file_bytes()));
            prop_assert_eq!(names(&reduced), names(&whole));
            prop_assert_eq!(dump(&reduced), dump(&build(rules, std::slice::from_ref(&entries)).unwrap()));
        }
    }
}
