//! Paths that need parents, or go through symbolic links; none leaves the root.

use super::fixtures::*;
use super::*;

#[test]
fn missing_parents_are_made() {
    assert_eq!(fold(&[vec![file("a/b/c", "x")]]), "a/? a/b/? a/b/c=x");
    assert_eq!(fold(&[vec![file("a/b", "x"), dir("a")]]), "a/ a/b=x");
}

/// One layer of both: paths go through the links of their own layer only.
fn through(first: Vec<LayerEntry>, then: LayerEntry) -> String {
    fold(&[[first, vec![then]].concat()])
}

#[test]
fn a_path_follows_the_symbolic_links_of_its_own_layer() {
    let links = |target| vec![dir("usr"), dir("usr/lib"), symlink("lib", target)];
    let expected = "lib->usr/lib usr/ usr/lib/ usr/lib/x=1";
    assert_eq!(through(links("usr/lib"), file("lib/x", "1")), expected);
    let absolute = expected.replace("->usr", "->/usr");
    assert_eq!(through(links("/usr/lib"), file("lib/x", "1")), absolute);
    // What it leads to may be a lower layer's.
    let lower = vec![dir("usr"), dir("usr/lib"), file("usr/lib/low", "0")];
    let upper = vec![symlink("lib", "usr/lib"), file("lib/x", "1")];
    assert_eq!(fold(&[lower, upper]), "lib->usr/lib usr/ usr/lib/ usr/lib/low=0 usr/lib/x=1");
}

#[test]
fn links_through_links_are_followed() {
    let links = vec![dir("t"), symlink("a", "b"), symlink("b", "/c/../d"), symlink("d", "./t/")];
    assert_eq!(through(links, file("a/f", "1")), "a->b b->/c/../d d->./t/ t/ t/f=1");
}

#[test]
fn dot_dot_stops_at_the_root() {
    let links = vec![dir("d"), symlink("d/up", "../../../../etc")];
    let expected = "d/ d/up->../../../../etc etc/? etc/passwd=x";
    assert_eq!(through(links, file("d/up/passwd", "x")), expected);
    let links = vec![dir("d"), dir("d/e"), symlink("d/e/up", "..")];
    assert_eq!(through(links, file("d/e/up/f", "x")), "d/ d/e/ d/e/up->.. d/f=x");
}

#[test]
fn what_does_not_exist_is_taken_literally() {
    let links = vec![symlink("l", "new/gone/../dir")];
    assert_eq!(through(links, file("l/f", "x")), "l->new/gone/../dir new/? new/dir/? new/dir/f=x");
}

#[test]
fn the_last_component_is_not_followed() {
    let lower = vec![file("t", "old"), symlink("l", "t")];
    assert_eq!(fold(&[lower.clone(), vec![file("l", "new")]]), "l=new t=old");
    assert_eq!(fold(&[lower, vec![whiteout("l")]]), "t=old");
}

#[test]
fn a_loop_of_links_is_refused() {
    let links = [symlink("a", "b"), symlink("b", "a")];
    let with = |last: LayerEntry| refusal(&[[&links[..], &[last]].concat()]);
    assert_eq!(with(file("a/f", "x")), TreeError::SymlinkLoop { path: "/a/f".into(), limit: 40 });
    assert!(matches!(with(whiteout("a/f")), TreeError::SymlinkLoop { .. }));
    assert!(matches!(with(link("l", "a/f")), TreeError::SymlinkLoop { .. }));
    let grows = vec![symlink("a", "a/a/a"), file("a/f", "x")];
    assert!(matches!(refusal(&[grows]), TreeError::SymlinkLoop { .. }));
}

#[test]
fn a_file_in_the_way_of_a_parent_of_the_same_layer_is_refused_by_its_whole_path() {
    let refused = |path: &str, blocker: &str| {
        let (path, blocker) = (path.to_owned(), blocker.to_owned());
        TreeError::NotADirectory { path, blocker }
    };
    let error = refusal(&[vec![dir("d"), file("d/f", "x"), file("d/f/g", "y")]]);
    assert_eq!(error, refused("/d/f/g", "/d/f"));
    assert_eq!(error.kind(), crate::kind::Kind::Invalid);
    let error = refusal(&[vec![file("f", "x"), file("f/g", "y")]]);
    assert_eq!(error, refused("/f/g", "/f"));
    // Reached by a link, what is in the way is named by its own path.
    let error = refusal(&[vec![file("a/b/f", "x"), symlink("l", "a/b"), file("l/f/g", "y")]]);
    assert_eq!(error, refused("/l/f/g", "/a/b/f"));
    // A link's target may be blocked by what a lower layer has.
    let error = refusal(&[vec![file("a/f", "x")], vec![link("l", "a/f/g")]]);
    assert_eq!(error, refused("/l", "/a/f"));
}

#[test]
fn names_need_not_be_text() {
    let mut odd = file("x", "1");
    odd.path = b"\xff\xfe\n= \\".as_slice().into();
    assert!(dump(&build(Rules::Faithful, &[vec![odd]]).unwrap()).contains("\n/\\xff\\xfe\\n=\\x20\\\\ 1 "));
}
