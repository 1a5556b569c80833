//! Layers over layers: merging, replacing, whiteouts, opaque directories.

use super::fixtures::*;
use super::*;

/// Every order of the entries of a layer must give the same tree.
fn in_every_order(lower: &[LayerEntry], upper: &[LayerEntry], expected: &str) {
    for order in permutations(upper.len()) {
        let upper: Vec<LayerEntry> = order.iter().map(|at| upper[*at].clone()).collect();
        assert_eq!(fold(&[lower.to_vec(), upper]), expected, "order {order:?}");
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let smaller = permutations(n - 1);
    smaller.iter().flat_map(|p| (0..n).map(move |at| [&p[..at], &[n - 1], &p[at..]].concat())).collect()
}

#[test]
fn directory_over_directory_takes_the_new_metadata_and_keeps_the_children() {
    let mut upper = dir("a");
    upper.meta.mode = 0o1777;
    upper.meta.uid = 9;
    let tree = build(Rules::Faithful, &[vec![dir("a"), file("a/f", "x")], vec![upper]]).unwrap();
    let dump = dump(&tree);
    assert!(dump.contains("/a 0 41777 2 9 2 0 7.0"), "{dump}");
    assert!(dump.contains("/a/f "), "{dump}");
}

#[test]
fn anything_else_replaces_with_the_children() {
    let lower = vec![dir("a"), dir("a/b"), file("a/b/f", "x"), file("z", "old")];
    assert_eq!(fold(&[lower.clone(), vec![file("a", "now")]]), "a=now z=old");
    assert_eq!(fold(&[lower.clone(), vec![symlink("a", "z")]]), "a->z z=old");
    assert_eq!(fold(&[lower.clone(), vec![link("a", "z")]]), "a=old z==a");
    assert_eq!(fold(&[lower.clone(), vec![dir("z"), file("z/f", "y")]]), "a/ a/b/ a/b/f=x z/ z/f=y");
    assert_eq!(fold(&[lower, vec![entry("z", EntryKind::Fifo)]]), "a/ a/b/ a/b/f=x z:10644");
}

#[test]
fn a_directory_over_a_symbolic_link_replaces_it() {
    let lower = vec![dir("t"), file("t/f", "x"), symlink("l", "t")];
    assert_eq!(fold(&[lower, vec![dir("l")]]), "l/ t/ t/f=x");
}

#[test]
fn what_a_layer_replaces_of_its_own_is_as_if_it_had_never_been() {
    let lower = vec![dir("a"), file("a/old", "x")];
    assert_eq!(fold(&[lower.clone(), vec![file("a", "between"), dir("a")]]), "a/ a/old=x");
    assert_eq!(fold(&[lower.clone(), vec![file("a/b/c", "1"), file("a/b", "2")]]), "a/ a/b=2 a/old=x");
    assert_eq!(fold(&[lower, vec![file("a/b", "1"), file("a", "2"), dir("a")]]), "a/ a/old=x");
}

#[test]
fn what_lies_below_anything_but_a_directory_of_a_lower_layer_makes_it_one() {
    let below = vec![file("l/x", "new")];
    let target = [dir("d"), file("d/keep", "k")];
    for (kind, expected) in [
        (file("l", "old"), "d/ d/keep=k l/? l/x=new"),
        (symlink("l", "d"), "d/ d/keep=k l/? l/x=new"),
        (symlink("l", "/d"), "d/ d/keep=k l/? l/x=new"),
        (symlink("l", "nowhere"), "d/ d/keep=k l/? l/x=new"),
        (symlink("l", "l"), "d/ d/keep=k l/? l/x=new"),
        (link("l", "d/keep"), "d/ d/keep=k l/? l/x=new"),
        (entry("l", EntryKind::Fifo), "d/ d/keep=k l/? l/x=new"),
        (dir("l"), "d/ d/keep=k l/ l/x=new"),
    ] {
        let lower = [&target[..], &[kind]].concat();
        assert_eq!(fold(&[lower.clone(), below.clone()]), expected);
        // A whiteout says so in so many words, and changes only whose metadata a directory has.
        let expected = expected.replace("l/ ", "l/? ");
        in_every_order(&lower, &[file("l/x", "new"), whiteout("l")], &expected);
    }
    // Further down, and with an entry for the directory.
    let lower = vec![dir("a"), file("a/b", "old")];
    assert_eq!(fold(&[lower.clone(), vec![file("a/b/c/d", "1")]]), "a/ a/b/? a/b/c/? a/b/c/d=1");
    in_every_order(&lower, &[dir("a/b"), file("a/b/c", "1"), whiteout("a/b")], "a/ a/b/ a/b/c=1");
}

#[test]
fn a_marker_below_anything_but_a_directory_changes_nothing() {
    let lower = vec![dir("d"), file("d/f", "x"), symlink("l", "d"), file("g", "x")];
    let unchanged = "d/ d/f=x g=x l->d";
    for marker in
        [whiteout("l/f"), opaque("l"), whiteout("g/f"), opaque("g"), whiteout("none/f"), opaque("none")]
    {
        assert_eq!(fold(&[lower.clone(), vec![marker]]), unchanged);
    }
    // With something new beside the marker there is a directory, and nothing in it that it could hide.
    in_every_order(&lower, &[opaque("l"), file("l/new", "n")], "d/ d/f=x g=x l/? l/new=n");
    in_every_order(&lower, &[whiteout("l/f"), file("l/new", "n")], "d/ d/f=x g=x l/? l/new=n");
}

#[test]
fn markers_go_through_the_links_of_their_own_layer() {
    let lower = vec![dir("d"), file("d/f", "x"), file("d/g", "x")];
    in_every_order(&lower, &[symlink("l", "d"), whiteout("l/f")], "d/ d/g=x l->d");
    in_every_order(&lower, &[symlink("l", "d"), opaque("l")], "d/ l->d");
    // A file of its own in the way hides it all the same.
    in_every_order(&lower, &[file("d", "now"), whiteout("d/f")], "d=now");
}

#[test]
fn the_last_of_several_entries_wins() {
    assert_eq!(fold(&[vec![file("a", "1"), file("a", "2")]]), "a=2");
    assert_eq!(fold(&[vec![dir("a"), file("a/f", "1"), dir("a")]]), "a/ a/f=1");
    assert_eq!(fold(&[vec![dir("a"), file("a/f", "1"), file("a", "2")]]), "a=2");
}

#[test]
fn a_whiteout_hides_lower_layers_only() {
    let lower = [dir("a"), file("a/low", "x"), file("b", "low")];
    in_every_order(&lower, &[whiteout("b")], "a/ a/low=x");
    in_every_order(&lower, &[whiteout("a")], "b=low");
    in_every_order(&lower, &[whiteout("b"), file("b", "new")], "a/ a/low=x b=new");
    in_every_order(&lower, &[whiteout("a"), dir("a")], "a/ b=low");
    in_every_order(&lower, &[whiteout("a"), file("a/new", "y")], "a/? a/new=y b=low");
    in_every_order(&lower, &[whiteout("a/low"), file("a/new", "y")], "a/ a/new=y b=low");
    in_every_order(&lower, &[whiteout("a"), link("a/new", "b")], "a/? a/new=low b==a/new");
}

#[test]
fn a_whiteout_hides_in_all_lower_layers() {
    let layers = [
        vec![dir("a"), file("a/1", "x")],
        vec![file("a/2", "x")],
        vec![whiteout("a"), file("a/3", "x")],
        vec![file("a/4", "x")],
    ];
    assert_eq!(fold(&layers), "a/? a/3=x a/4=x");
}

#[test]
fn a_whiteout_of_nothing_is_nothing() {
    let upper = vec![whiteout("x"), whiteout("x/y"), whiteout("f/y"), opaque("x"), opaque("f")];
    assert_eq!(fold(&[vec![file("f", "1")], upper]), "f=1");
}

#[test]
fn an_opaque_directory_hides_what_lower_layers_have_in_it() {
    let lower = [dir("a"), dir("a/b"), file("a/b/low", "x"), file("a/low", "x"), file("z", "1")];
    in_every_order(&lower, &[opaque("a")], "a/ z=1");
    in_every_order(&lower, &[opaque("a"), dir("a"), file("a/new", "y")], "a/ a/new=y z=1");
    in_every_order(&lower, &[opaque("a"), file("a/b/new", "y")], "a/ a/b/? a/b/new=y z=1");
    in_every_order(&lower, &[opaque("a"), dir("a/b")], "a/ a/b/ z=1");
    in_every_order(&lower, &[opaque("a"), whiteout("a/low"), file("a/low", "y")], "a/ a/low=y z=1");
}

#[test]
fn an_opaque_root_hides_everything_below() {
    let lower = [dir("a"), file("a/low", "x"), file("z", "1")];
    in_every_order(&lower, &[opaque(""), file("a/new", "y")], "a/? a/new=y");
}

#[test]
fn a_marker_without_the_directory_it_was_in_does_not_bring_it_back() {
    assert_eq!(fold(&[vec![dir("a"), file("a/f", "x")], vec![whiteout("a")], vec![opaque("a")]]), "");
}

#[test]
fn whiteout_devices_of_the_image_are_kept() {
    let device = entry("w", EntryKind::CharDevice(0, 0));
    assert_eq!(fold(&[vec![device]]), "w:20644");
}

#[test]
fn many_markers_over_one_large_directory_cost_their_sum() {
    let large = |layer| (0..60_000).map(move |at| file(&format!("d/e/{layer}-{at}"), "x"));
    let mut upper: Vec<LayerEntry> = large("upper").collect();
    for _ in 0..60_000 {
        upper.extend([opaque("d/e"), whiteout("d"), opaque("")]);
    }
    // Ten thousand million steps, if each marker looked at every file.
    let started = std::time::Instant::now();
    build(Rules::Faithful, &[large("lower").collect(), upper]).unwrap();
    assert!(started.elapsed() < std::time::Duration::from_secs(120), "{:?}", started.elapsed());
}
