//! Hard links within and across layers, before and after their target.

use super::fixtures::*;
use super::*;

#[test]
fn a_link_is_another_name() {
    assert_eq!(fold(&[vec![file("a", "1"), link("b", "a")]]), "a=1 b==a");
    assert_eq!(fold(&[vec![file("a", "1")], vec![link("b", "a")]]), "a=1 b==a");
    let tree = build(Rules::Faithful, &[vec![file("a", "1"), link("b", "a"), link("c", "b")]]).unwrap();
    assert_eq!(tree.inodes(), 2);
    assert_eq!(tree.file_bytes(), 1);
    assert!(dump(&tree).contains("/a 1 100644 3 1 2 0 7.0"));
}

#[test]
fn a_link_keeps_the_inode_when_its_other_name_goes() {
    let lower = vec![file("a", "1"), link("b", "a")];
    assert_eq!(fold(&[lower.clone(), vec![whiteout("a")]]), "b=1");
    assert_eq!(fold(&[lower, vec![file("a", "2")]]), "a=2 b=1");
    assert_eq!(fold(&[vec![file("a", "1")], vec![link("b", "a"), whiteout("a")]]), "b=1");
    assert_eq!(fold(&[vec![file("a", "1")], vec![link("b", "a"), file("a", "2")]]), "a=2 b=1");
}

#[test]
fn a_link_into_the_directory_that_it_replaces_keeps_the_file() {
    assert_eq!(fold(&[vec![dir("a"), file("a/f", "1"), link("a", "a/f")]]), "a=1");
}

#[test]
fn a_link_to_itself_changes_nothing() {
    assert_eq!(fold(&[vec![file("a", "1"), link("a", "a")]]), "a=1");
    assert_eq!(fold(&[vec![file("a", "1")], vec![link("a", "a"), whiteout("a")]]), "a=1");
}

#[test]
fn a_link_to_a_symbolic_link_links_that() {
    let tree = build(Rules::Faithful, &[vec![symlink("s", "nowhere"), link("l", "s")]]).unwrap();
    assert_eq!(view(&tree), "l->nowhere s==l");
}

#[test]
fn devices_and_fifos_can_be_linked() {
    let entries = vec![entry("p", EntryKind::Fifo), link("q", "p")];
    assert_eq!(fold(&[entries]), "p:10644 q==p");
}

#[test]
fn a_link_may_come_before_its_target() {
    assert_eq!(fold(&[vec![link("a", "z"), file("z", "1")]]), "a=1 z==a");
    let chain = vec![link("a", "b"), link("b", "c"), link("c", "d"), file("d", "1")];
    assert_eq!(fold(std::slice::from_ref(&chain)), "a=1 b==a c==a d==a");
    let mut other_way = chain;
    other_way[..3].reverse();
    assert_eq!(fold(&[other_way]), "a=1 b==a c==a d==a");
    assert_eq!(fold(&[vec![link("x/a", "y/z"), dir("y"), file("y/z", "1")]]), "x/? x/a=1 y/ y/z==x/a");
}

#[test]
fn a_waiting_link_is_cancelled_by_what_replaces_it() {
    assert_eq!(fold(&[vec![link("a", "z"), file("a", "2"), file("z", "1")]]), "a=2 z=1");
    assert_eq!(fold(&[vec![link("a", "z"), link("a", "y"), file("z", "1"), file("y", "2")]]), "a=2 y==a z=1");
    assert_eq!(fold(&[vec![link("d/a", "z"), file("d", "2"), file("z", "1")]]), "d=2 z=1");
    assert_eq!(fold(&[vec![link("d/a", "nowhere"), file("d", "2")]]), "d=2");
}

#[test]
fn a_waiting_link_is_its_layer_s_own() {
    let lower = vec![dir("d"), file("d/low", "x")];
    assert_eq!(fold(&[lower, vec![link("d/a", "z"), whiteout("d"), file("z", "1")]]), "d/? d/a=1 z==d/a");
}

#[test]
fn a_long_chain_in_the_worst_order_ends() {
    // Every other link backwards: two rounds settle only the ends.
    let mut links: Vec<LayerEntry> =
        (0..30).map(|at| link(&format!("l{at:02}"), &format!("l{:02}", at + 1))).collect();
    links.push(file("l30", "1"));
    assert!(fold(&[links]).starts_with("l00=1 l01==l00"));
}

#[test]
fn targets_are_found_through_symbolic_links() {
    let lower = vec![dir("usr"), dir("usr/bin"), file("usr/bin/x", "1"), symlink("bin", "usr/bin")];
    let folded = fold(&[[lower.clone(), vec![link("bin/y", "bin/x")]].concat()]);
    assert_eq!(folded, "bin->usr/bin usr/ usr/bin/ usr/bin/x=1 usr/bin/y==usr/bin/x");
    let folded = fold(&[lower.clone(), vec![link("y", "bin/x")]]);
    assert_eq!(folded, "bin->usr/bin usr/ usr/bin/ usr/bin/x=1 y==usr/bin/x");
    // Through a link of the layer to what only lower layers have.
    let folded = fold(&[lower, vec![symlink("s", "bin/.."), link("y", "s/bin/x")]]);
    assert_eq!(folded, "bin->usr/bin s->bin/.. usr/ usr/bin/ usr/bin/x=1 y==usr/bin/x");
}

#[test]
fn targets_are_the_layers_own_before_those_of_lower_ones() {
    let lower = vec![dir("d"), file("d/f", "low"), file("d/g", "low")];
    let folded = fold(&[lower.clone(), vec![file("d/f", "own"), link("l", "d/f"), link("m", "d/g")]]);
    assert_eq!(folded, "d/ d/f=own d/g=low l==d/f m==d/g");
    // What comes after the link does not change where it led.
    assert_eq!(fold(&[lower, vec![link("l", "d/f"), file("d/f", "own")]]), "d/ d/f=own d/g=low l=low");
}

#[test]
fn a_file_that_is_renamed_by_a_link_and_a_whiteout_stays() {
    let renamed = "b=1";
    assert_eq!(fold(&[vec![file("a", "1")], vec![link("b", "a"), whiteout("a")]]), renamed);
    assert_eq!(fold(&[vec![file("a", "1")], vec![whiteout("a"), link("b", "a")]]), renamed);
    let lower = vec![dir("d"), file("d/f", "1")];
    assert_eq!(fold(&[lower, vec![opaque("d"), link("g", "d/f")]]), "d/ g=1");
}

#[test]
fn links_into_the_files_that_aufs_kept_are_names_of_one_inode() {
    let kept = file(".wh..wh.plnk/1.2", "1");
    let links = [link("a", ".wh..wh.plnk/1.2"), link("d/b", ".wh..wh.plnk/1.2")];
    for at in 0..=links.len() {
        let mut layer = links.to_vec();
        layer.insert(at, kept.clone());
        let folded = fold(&[vec![dir("d")], layer]);
        assert_eq!(folded, "a=1 d/ d/b==a");
    }
    // They belong to their layer.
    let error = refusal(&[vec![kept], links.to_vec()]);
    assert!(matches!(error, TreeError::LinkTargetMissing { .. }));
}

#[test]
fn a_link_without_a_target_names_both_paths() {
    let error = refusal(&[vec![file("f", "x")], vec![dir("d"), link("d/a", "gone")]]);
    assert_eq!(error, TreeError::LinkTargetMissing { path: "/d/a".into(), target: "/gone".into() });
    let error = refusal(&[vec![file("f", "x")], vec![whiteout("f")], vec![link("a", "f")]]);
    assert_eq!(error, TreeError::LinkTargetMissing { path: "/a".into(), target: "/f".into() });
    // A later layer cannot mend it.
    let error = refusal(&[vec![link("a", "z")], vec![file("z", "1")]]);
    assert!(matches!(error, TreeError::LinkTargetMissing { .. }));
    // Nor can a circle.
    let error = refusal(&[vec![link("a", "b"), link("b", "a")]]);
    assert!(matches!(error, TreeError::LinkTargetMissing { .. }));
}

#[test]
fn directories_cannot_be_linked() {
    let refused = TreeError::LinkToDirectory { path: "/a".into(), target: "/d".into() };
    assert_eq!(refusal(&[vec![dir("d"), link("a", "d")]]), refused);
    assert_eq!(refusal(&[vec![link("a", "d"), dir("d")]]), refused);
    assert!(matches!(refusal(&[vec![link("a", "")]]), TreeError::LinkToDirectory { .. }));
}

#[test]
fn a_layer_dropped_before_its_end_is_noticed() {
    let mut builder = Builder::new(Rules::Faithful);
    builder.layer().apply(link("a", "gone")).unwrap();
    assert!(matches!(builder.finish(), Err(TreeError::LinkTargetMissing { .. })));
}
