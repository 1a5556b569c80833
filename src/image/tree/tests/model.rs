//! Random layers against a small model of what container runtimes do with overlayfs: each layer is unpacked into a
//! directory of its own, then the directories are stacked. The model keeps flat lists of paths and copies them; it
//! shares nothing with the tree.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::fixtures::*;
use super::*;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq)]
enum Thing {
    /// Whether an entry describes it.
    Directory(bool),
    File(String),
    Link(String),
}

type Paths = BTreeMap<String, Thing>;

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn parent(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_below(path: &str, top: &str) -> bool {
    top.is_empty() && !path.is_empty() || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

fn remove(paths: &mut Paths, top: &str) {
    paths.retain(|path, _| path != top && !is_below(path, top));
}

/// Where the directory `path` really is, through symbolic links. `None` if a file is in the way, or if it goes in circles.
fn real(paths: &Paths, from: &str, path: &str, links: usize) -> Option<String> {
    let mut at = from.to_owned();
    let mut names = path.split('/');
    while let Some(name) = names.next() {
        match name {
            "" | "." => continue,
            ".." => {
                at = parent(&at).0.to_owned();
                continue;
            }
            _ => {}
        }
        let next = join(&at, name);
        match paths.get(&next) {
            None | Some(Thing::Directory(_)) => at = next,
            Some(Thing::File(_)) => return None,
            Some(Thing::Link(target)) => {
                let rest: Vec<&str> = names.collect();
                let from = if target.starts_with('/') { "" } else { &at };
                let target = [&[target.as_str()], &rest[..]].concat().join("/");
                return (links > 0).then(|| real(paths, from, &target, links - 1)).flatten();
            }
        }
    }
    Some(at)
}

/// One layer over the others. `None` if it cannot be unpacked.
fn stack(lower: &Paths, entries: &[LayerEntry]) -> Option<Paths> {
    let mut own = Paths::new();
    for entry in entries {
        let path = String::from_utf8(entry.path.to_vec()).unwrap();
        let (dir, name) = parent(&path);
        let thing = match &entry.kind {
            EntryKind::Whiteout | EntryKind::Opaque => continue,
            EntryKind::Directory => Thing::Directory(true),
            EntryKind::Symlink(target) => Thing::Link(String::from_utf8(target.to_vec()).unwrap()),
            EntryKind::Inline(content) => Thing::File(String::from_utf8(content.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        };
        let dir = real(&own, "", dir, 40)?;
        let mut at = String::new();
        for name in dir.split('/').filter(|name| !name.is_empty()) {
            at = join(&at, name);
            own.entry(at.clone()).or_insert(Thing::Directory(false));
        }
        let path = join(&dir, name);
        if !matches!((&thing, own.get(&path)), (Thing::Directory(_), Some(Thing::Directory(_)))) {
            remove(&mut own, &path);
        }
        own.insert(path, thing);
    }
    let mut stacked = lower.clone();
    for entry in entries {
        let path = std::str::from_utf8(&entry.path).unwrap();
        match entry.kind {
            EntryKind::Opaque => {
                // Through what the layer has; where that is a file, nothing is left to hide.
                if let Some(dir) = real(&own, "", path, 40) {
                    stacked.retain(|path, _| !is_below(path, &dir));
                }
            }
            EntryKind::Whiteout => {
                let (dir, name) = parent(path);
                if let Some(dir) = real(&own, "", dir, 40) {
                    remove(&mut stacked, &join(&dir, name));
                }
            }
            _ => {}
        }
    }
    for (path, thing) in own {
        match (&thing, stacked.get(&path)) {
            (Thing::Directory(false), Some(Thing::Directory(_))) => continue,
            (Thing::Directory(true), Some(Thing::Directory(_))) => {}
            _ => remove(&mut stacked, &path),
        }
        stacked.insert(path, thing);
    }
    Some(stacked)
}

/// As [`view`] shows a tree.
fn shown(paths: &Paths) -> String {
    // In the order of a walk, in which `/` sorts before everything.
    let mut sorted: Vec<_> = paths.iter().collect();
    sorted.sort_by_key(|(path, _)| path.split('/').collect::<Vec<_>>());
    let word = |(path, thing): (&String, &Thing)| match thing {
        Thing::Directory(true) => format!("{path}/"),
        Thing::Directory(false) => format!("{path}/?"),
        Thing::File(content) => format!("{path}={content}"),
        Thing::Link(target) => format!("{path}->{target}"),
    };
    sorted.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

fn path() -> impl Strategy<Value = String> {
    vec("[abc]", 1..4).prop_map(|names| names.join("/"))
}

fn any_entry() -> impl Strategy<Value = LayerEntry> {
    let target =
        prop_oneof![path(), path().prop_map(|to| format!("/{to}")), path().prop_map(|to| format!("../{to}"))];
    prop_oneof![
        3 => path().prop_map(|path| dir(&path)),
        5 => (path(), "[xyz]").prop_map(|(path, content)| file(&path, &content)),
        2 => (path(), target).prop_map(|(path, target)| symlink(&path, &target)),
        3 => path().prop_map(|path| whiteout(&path)),
        2 => path().prop_map(|path| opaque(&path)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn layers_stack_as_overlayfs_stacks_them(layers in vec(vec(any_entry(), 0..8), 1..5)) {
        let (mut paths, mut fitting) = (Paths::new(), Vec::new());
        for entries in layers {
            // What no runtime unpacks is left out, entry by entry.
            let mut kept: Vec<LayerEntry> = Vec::new();
            for entry in entries {
                kept.push(entry);
                if stack(&paths, &kept).is_none() {
                    kept.pop();
                }
            }
            // A marker on a path that goes in circles is refused, and its layer with it.
            if fold_all(&fitting, &kept).is_err() {
                let entries = kept.iter().filter(|entry| matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque));
                prop_assert!(entries.count() > 0, "refused: {kept:?}");
                continue;
            }
            paths = stack(&paths, &kept).unwrap();
            fitting.push(kept);
        }
        prop_assert_eq!(fold(&fitting), shown(&paths), "{:?}", fitting);
    }

    /// Where markers stand among the other entries of their layer makes no difference.
    #[test]
    fn markers_count_wherever_they_stand(
        layers in vec(vec(any_entry(), 0..6), 1..3),
        last in vec(any_entry(), 0..8),
        places in vec(any::<prop::sample::Index>(), 8),
    ) {
        let is_marker = |entry: &LayerEntry| matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque);
        let (markers, mut moved): (Vec<LayerEntry>, Vec<LayerEntry>) =
            last.iter().cloned().partition(is_marker);
        for (marker, place) in markers.into_iter().zip(&places) {
            moved.insert(place.index(moved.len() + 1), marker);
        }
        match (fold_all(&layers, &last), fold_all(&layers, &moved)) {
            (Ok(one), Ok(other)) => prop_assert_eq!(dump(&one), dump(&other)),
            (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
        }
    }
}

fn fold_all(layers: &[Vec<LayerEntry>], last: &[LayerEntry]) -> Result<CheckedTree, TreeError> {
    build(Rules::Verbatim, &[layers, &[last.to_vec()]].concat())
}
