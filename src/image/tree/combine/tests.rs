//! Combined trees against a model: a map from paths to what stands there.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::entry::Mtime;
use crate::image::tree::dump::write_dump;
use crate::image::verity::VerityDigest;
use crate::oci::limits::Cap;

/// A tree: what stands at each path, the root included.
type Tree = BTreeMap<String, (Meta, EntryKind)>;

fn meta(mode: u32, secs: i64) -> Meta {
    Meta { mode, uid: mode, mtime: Mtime { secs, nanos: 0 }, ..Meta::default() }
}

/// The tree without what lies below a file: an image has no such entries.
fn sound(entries: Vec<(String, Meta, EntryKind)>, root: Meta) -> Tree {
    let mut tree = Tree::from([(String::new(), (root, EntryKind::Directory))]);
    for (path, meta, kind) in entries {
        let parents: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        let blocked =
            parents.iter().any(|dir| tree.get(*dir).is_some_and(|(_, kind)| *kind != EntryKind::Directory));
        if blocked || tree.contains_key(&path) {
            continue;
        }
        for dir in parents {
            tree.entry(dir.to_owned()).or_insert((self::meta(0o700, 1), EntryKind::Directory));
        }
        tree.insert(path, (meta, kind));
    }
    tree
}

fn tree() -> impl Strategy<Value = Tree> {
    let kind = prop_oneof![
        3 => Just(EntryKind::Directory),
        3 => (0u8..2).prop_map(|byte| EntryKind::Inline([byte].into())),
        1 => (0u8..2).prop_map(|byte| EntryKind::Object(VerityDigest([byte; 32]), 1000)),
        1 => Just(EntryKind::Symlink(b"a".as_slice().into())),
        1 => Just(EntryKind::CharDevice(1, 3)),
    ];
    let path = vec("[ab]", 1..4).prop_map(|names| names.join("/"));
    let meta = || (0u32..2, 0i64..3).prop_map(|(mode, secs)| self::meta(0o600 + mode, secs));
    (vec((path, meta(), kind), 0..10), meta()).prop_map(|(entries, root)| sound(entries, root))
}

fn place() -> impl Strategy<Value = String> {
    vec("[abc]", 0..3).prop_map(|names| names.join("/"))
}

fn combine(members: &[(Tree, String)]) -> Result<CheckedTree, TreeError> {
    let mut combiner = Combiner::new(ImageLimits::default(), &Stop::default());
    for (number, (tree, at)) in members.iter().enumerate() {
        combiner.begin(&format!("image {number}"), at.as_bytes());
        for (path, (meta, kind)) in tree {
            let (path, meta, kind) = (path.as_bytes().into(), meta.clone(), kind.clone());
            combiner.add(LayerEntry { path, meta, kind })?;
        }
    }
    Ok(combiner.finish())
}

/// What the combination should be, or the two images that meet.
fn model(members: &[(Tree, String)]) -> Result<Tree, (usize, usize)> {
    let mut whole: BTreeMap<String, (usize, Meta, EntryKind)> = BTreeMap::new();
    let implied = || Meta { mode: 0o755, ..Meta::default() };
    whole.insert(String::new(), (0, implied(), EntryKind::Directory));
    for (number, (tree, at)) in members.iter().enumerate() {
        let mut places: Vec<(String, Option<(Meta, EntryKind)>)> = Vec::new();
        places.extend(at.match_indices('/').map(|(end, _)| (at[..end].to_owned(), None)));
        let below = |path: &str| match (at.as_str(), path) {
            ("", path) => path.to_owned(),
            (at, "") => at.to_owned(),
            (at, path) => format!("{at}/{path}"),
        };
        places.extend(tree.iter().map(|(path, found)| (below(path), Some(found.clone()))));
        for (path, found) in places {
            let (meta, kind) = found.clone().unwrap_or((implied(), EntryKind::Directory));
            match whole.get_mut(&path) {
                None => drop(whole.insert(path, (number, meta, kind))),
                Some((_, old, EntryKind::Directory)) if kind == EntryKind::Directory => {
                    if found.is_some() {
                        *old = meta;
                    }
                }
                Some((_, old, there))
                    if *there == kind && Meta { mtime: old.mtime, ..meta.clone() } == *old => {}
                Some((owner, ..)) => return Err((*owner, number)),
            }
        }
    }
    Ok(whole.into_iter().map(|(path, (_, meta, kind))| (path, (meta, kind))).collect())
}

fn dump(tree: &CheckedTree) -> String {
    let mut text = Vec::new();
    write_dump(tree, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_combination_is_what_a_map_says(members in vec((tree(), place()), 1..4)) {
        match (combine(&members), model(&members)) {
            (Ok(found), Ok(wanted)) => {
                // The model as the only image of a tree, which the next test holds to be that image.
                let wanted = combine(&[(wanted, String::new())]).unwrap();
                prop_assert_eq!(dump(&found), dump(&wanted));
            }
            (Err(TreeError::Meeting { first, second, .. }), Err((one, two))) => {
                prop_assert_eq!((first, second), (format!("image {one}"), format!("image {two}")));
            }
            (found, wanted) => prop_assert!(false, "{:?} is not {:?}", found.map(|tree| dump(&tree)), wanted),
        }
    }

    #[test]
    fn one_image_alone_is_itself(tree in tree()) {
        let dumped = dump(&combine(&[(tree.clone(), String::new())]).unwrap());
        prop_assert_eq!(dumped.lines().count(), tree.len());
        for (line, (path, (meta, kind))) in dumped.lines().zip(in_order(&tree)) {
            let fields: Vec<&str> = line.split(' ').collect();
            prop_assert_eq!(fields[0], format!("/{path}"));
            prop_assert!(fields[2].ends_with(&format!("{:o}", meta.mode)), "{}", line);
            prop_assert_eq!(fields[4], meta.uid.to_string());
            prop_assert_eq!(fields[7], format!("{}.0", meta.mtime.secs));
            prop_assert_eq!(fields[2].starts_with('4'), *kind == EntryKind::Directory);
        }
    }
}

/// The paths in the order of a walk: what is in a directory follows it.
fn in_order(tree: &Tree) -> Vec<(&String, &(Meta, EntryKind))> {
    let mut all: Vec<_> = tree.iter().collect();
    all.sort_by_key(|(path, _)| path.split('/').map(str::to_owned).collect::<Vec<_>>());
    all
}

fn file(path: &str, content: &[u8]) -> LayerEntry {
    LayerEntry { path: path.as_bytes().into(), meta: meta(0o644, 5), kind: EntryKind::Inline(content.into()) }
}

fn link(path: &str, target: &str) -> LayerEntry {
    let kind = EntryKind::Hardlink(target.as_bytes().into());
    LayerEntry { path: path.as_bytes().into(), meta: Meta::default(), kind }
}

fn combined(members: &[(&str, Vec<LayerEntry>)]) -> Result<String, TreeError> {
    let mut combiner = Combiner::new(ImageLimits::default(), &Stop::default());
    for (number, (at, entries)) in members.iter().enumerate() {
        combiner.begin(&format!("image {number}"), at.as_bytes());
        entries.iter().try_for_each(|entry| combiner.add(entry.clone()))?;
    }
    Ok(dump(&combiner.finish()))
}

#[test]
fn hard_links_stay_in_their_image_and_may_meet_what_is_the_same() {
    let linked = || vec![file("a", b"x"), link("b", "a")];
    let shown = combined(&[("one", linked()), ("two", linked())]).unwrap();
    assert!(shown.contains("/one/b 0 @120000 - - - - 0.0 /one/a"), "{shown}");
    assert!(shown.contains("/two/b 0 @120000 - - - - 0.0 /two/a"), "{shown}");
    let same = combined(&[("", linked()), ("", linked())]).unwrap();
    assert_eq!(same, combined(&[("", linked())]).unwrap());
    // As two files first, and then as one: its bytes are what counts.
    let apart = combined(&[("", vec![file("a", b"x"), file("b", b"x")]), ("", linked())]).unwrap();
    assert!(!apart.contains("@120000"), "{apart}");
    let error = combined(&[("", vec![file("b", b"y")]), ("", linked())]).unwrap_err();
    assert!(matches!(&error, TreeError::Meeting { path, .. } if path == "/b"), "{error}");
    let lost = combined(&[("", vec![link("b", "a")])]).unwrap_err();
    assert!(matches!(lost, TreeError::LinkTargetMissing { .. }));
}

#[test]
fn a_place_does_not_lead_through_what_another_image_has() {
    let symlink = EntryKind::Symlink(b"/etc".as_slice().into());
    let entry = LayerEntry { path: b"models".as_slice().into(), meta: meta(0o777, 0), kind: symlink };
    let error = combined(&[("", vec![entry]), ("models/base", vec![file("x", b"1")])]).unwrap_err();
    assert_eq!(
        error,
        TreeError::Meeting { path: "/models".into(), first: "image 0".into(), second: "image 1".into() }
    );
}

#[test]
fn limits_hold_for_all_images_together() {
    let limits = ImageLimits { inodes: 4, ..ImageLimits::default() };
    let mut combiner = Combiner::new(limits, &Stop::default());
    combiner.begin("one", b"a/b");
    combiner.add(file("x", b"1")).unwrap();
    combiner.begin("two", b"c");
    let error = combiner.add(file("x", b"1")).unwrap_err();
    assert!(matches!(&error, TreeError::Limit(exceeded) if exceeded.cap == Cap::Inodes), "{error}");
    let stop = Stop::default();
    let mut combiner = Combiner::new(ImageLimits::default(), &stop);
    combiner.begin("one", b"");
    stop.stop();
    assert_eq!(combiner.add(file("x", b"1")), Err(TreeError::Stopped));
    let deep = vec!["d"; MAX_DEPTH].join("/");
    assert!(matches!(combined(&[(&deep, vec![file("x", b"1")])]), Err(TreeError::TooDeep { .. })));
}
