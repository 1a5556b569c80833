//! Paths that need parents, or go through symbolic links; none leaves the root.

use super::fixtures::*;
use super::*;

#[test]
fn missing_parents_are_made() {
    assert_eq!(fold(&[vec![file("a/b/c", "x")]]), "a/? a/b/? a/b/c=x");
    assert_eq!(fold(&[vec![file("a/b", "x"), dir("a")]]), "a/ a/b=x");
}

#[test]
fn a_path_follows_the_symbolic_links_of_lower_layers_and_its_own() {
    let lower = vec![dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")];
    let expected = "lib->usr/lib usr/ usr/lib/ usr/lib/x=1";
    assert_eq!(fold(&[lower.clone(), vec![file("lib/x", "1")]]), expected);
    assert_eq!(fold(&[[lower.clone(), vec![file("lib/x", "1")]].concat()]), expected);
    let absolute = vec![dir("usr"), dir("usr/lib"), symlink("lib", "/usr/lib")];
    assert_eq!(fold(&[absolute, vec![file("lib/x", "1")]]), "lib->/usr/lib usr/ usr/lib/ usr/lib/x=1");
}

#[test]
fn links_through_links_are_followed() {
    let lower = vec![dir("t"), symlink("a", "b"), symlink("b", "/c/../d"), symlink("d", "./t/")];
    assert_eq!(fold(&[lower, vec![file("a/f", "1")]]), "a->b b->/c/../d d->./t/ t/ t/f=1");
}

#[test]
fn dot_dot_stops_at_the_root() {
    let lower = vec![dir("d"), symlink("d/up", "../../../../etc")];
    assert_eq!(fold(&[lower, vec![file("d/up/passwd", "x")]]), "d/ d/up->../../../../etc etc/? etc/passwd=x");
    let lower = vec![dir("d"), dir("d/e"), symlink("d/e/up", "..")];
    assert_eq!(fold(&[lower, vec![file("d/e/up/f", "x")]]), "d/ d/e/ d/e/up->.. d/f=x");
}

#[test]
fn what_does_not_exist_is_taken_literally() {
    let lower = vec![symlink("l", "new/gone/../dir")];
    assert_eq!(fold(&[lower, vec![file("l/f", "x")]]), "l->new/gone/../dir new/? new/dir/? new/dir/f=x");
}

#[test]
fn the_last_component_is_not_followed() {
    let lower = vec![file("t", "old"), symlink("l", "t")];
    assert_eq!(fold(&[lower.clone(), vec![file("l", "new")]]), "l=new t=old");
    assert_eq!(fold(&[lower, vec![whiteout("l")]]), "t=old");
}

#[test]
fn markers_follow_the_links_in_their_parents() {
    let lower = vec![dir("usr"), dir("usr/lib"), file("usr/lib/x", "1"), symlink("lib", "usr/lib")];
    assert_eq!(fold(&[lower.clone(), vec![whiteout("lib/x")]]), "lib->usr/lib usr/ usr/lib/");
    assert_eq!(fold(&[lower, vec![opaque("lib")]]), "lib->usr/lib usr/ usr/lib/");
}

#[test]
fn a_loop_of_links_is_refused() {
    let lower = vec![symlink("a", "b"), symlink("b", "a")];
    let error = refusal(&[lower.clone(), vec![file("a/f", "x")]]);
    assert_eq!(error, TreeError::SymlinkLoop { path: "/a/f".into(), limit: 40 });
    assert!(matches!(refusal(&[lower, vec![whiteout("a/f")]]), TreeError::SymlinkLoop { .. }));
    let grows = vec![symlink("a", "a/a/a")];
    assert!(matches!(refusal(&[grows, vec![file("a/f", "x")]]), TreeError::SymlinkLoop { .. }));
}

#[test]
fn a_file_in_the_way_of_a_parent_is_refused() {
    let error = refusal(&[vec![dir("d"), file("d/f", "x")], vec![file("d/f/g", "y")]]);
    assert_eq!(error, TreeError::NotADirectory { path: "/d/f/g".into(), blocker: "/f".into() });
    assert_eq!(error.kind(), crate::kind::Kind::Invalid);
}

#[test]
fn names_need_not_be_text() {
    let mut odd = file("x", "1");
    odd.path = b"\xff\xfe\n= \\".as_slice().into();
    assert!(dump(&build(Rules::Faithful, &[vec![odd]]).unwrap()).contains("\n/\\xff\\xfe\\n=\\x20\\\\ 1 "));
}
