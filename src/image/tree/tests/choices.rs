//! What a choice takes of a tree.

use proptest::prelude::*;

use super::fixtures::*;
use super::*;
use crate::oci::choice::{Choice, ChoiceError};

fn choice(include: &[&str], exclude: &[&str]) -> Choice {
    Choice::new(include.iter().copied(), exclude.iter().copied()).unwrap()
}

fn chosen(layers: &[Vec<LayerEntry>], choice: &Choice) -> Result<String, TreeError> {
    let mut builder = Builder::new(Rules::Verbatim).choosing(choice);
    for entries in layers {
        let mut layer = builder.layer();
        entries.iter().try_for_each(|entry| layer.apply(entry.clone()))?;
        layer.end()?;
    }
    Ok(view(&builder.finish()?))
}

/// The layers as they are stored where only what the choice takes by its names is.
fn without_content(layers: &[Vec<LayerEntry>], choice: &Choice) -> Vec<Vec<LayerEntry>> {
    let stored = |entry: &LayerEntry| match &entry.kind {
        EntryKind::Inline(bytes) if !choice.takes(&entry.path) => {
            LayerEntry { kind: EntryKind::LeftOut(bytes.len() as u64), ..entry.clone() }
        }
        _ => entry.clone(),
    };
    layers.iter().map(|layer| layer.iter().map(stored).collect()).collect()
}

fn model() -> Vec<Vec<LayerEntry>> {
    vec![vec![
        dir("m"),
        dir("m/a"),
        file("m/a/x.bin", "1"),
        file("m/a/x.md", "2"),
        dir("m/empty"),
        dir("m/b"),
        file("m/b/y.bin", "3"),
        file("top.md", "4"),
        symlink("link", "m/a/x.bin"),
    ]]
}

#[test]
fn what_is_taken_stays_with_the_directories_on_its_way() {
    for (include, exclude, expected) in [
        (&["m/a"][..], &[][..], "m/ m/a/ m/a/x.bin=1 m/a/x.md=2"),
        (&["**/*.bin"], &[], "m/ m/a/ m/a/x.bin=1 m/b/ m/b/y.bin=3"),
        (&["m/empty", "top.md"], &[], "m/ m/empty/ top.md=4"),
        (&["m"], &["m/a", "m/empty"], "m/ m/b/ m/b/y.bin=3"),
        (&[], &["m"], "link->m/a/x.bin top.md=4"),
        (&[], &["**/*.md", "link", "m/b/*"], "m/ m/a/ m/a/x.bin=1 m/b/ m/empty/"),
        (&["link"], &[], "link->m/a/x.bin"),
    ] {
        let choice = choice(include, exclude);
        assert_eq!(chosen(&model(), &choice).unwrap(), expected, "{choice}");
        assert_eq!(chosen(&without_content(&model(), &choice), &choice).unwrap(), expected, "{choice}");
    }
}

#[test]
fn what_takes_nothing_is_an_error() {
    let refused = |include: &[&str], exclude: &[&str]| match chosen(&model(), &choice(include, exclude)) {
        Err(TreeError::Choice(error)) => error,
        other => panic!("{other:?}"),
    };
    let unmatched = |pattern: &str| ChoiceError::Unmatched { pattern: pattern.to_owned() };
    assert_eq!(refused(&["m/a", "x.bin"], &[]), unmatched("x.bin"));
    assert_eq!(refused(&["m/a/x.bin"], &["m/a"]), unmatched("m/a/x.bin"));
    for (include, exclude) in [(&[][..], &["**"][..]), (&["m"], &["m/*"]), (&["m/a/*"], &["**/x.*"])] {
        // A directory that is taken is something, even if it is empty.
        if include == ["m"] {
            assert_eq!(chosen(&model(), &choice(include, exclude)).unwrap(), "m/");
            continue;
        }
        let error = refused(include, exclude);
        assert!(matches!(error, ChoiceError::Nothing { .. } | ChoiceError::Unmatched { .. }), "{error}");
    }
}

#[test]
fn what_is_left_out_hides_and_replaces_as_it_does_in_the_whole() {
    let lower = vec![dir("a"), file("a/f", "low"), file("b", "low")];
    for (upper, include, expected) in [
        (vec![file("a", "over"), file("c", "3")], &["c", "a/f"][..], None),
        (vec![file("a", "over"), file("c", "3")], &["c"], Some("c=3")),
        (vec![whiteout("b"), file("c", "3")], &["c", "a"], Some("a/ a/f=low c=3")),
        (vec![opaque("a"), file("a/g", "3")], &["a"], Some("a/ a/g=3")),
    ] {
        let (layers, choice) = ([lower.clone(), upper], choice(include, &[]));
        let whole = chosen(&layers, &choice);
        assert_eq!(whole.clone().ok().as_deref(), expected, "{whole:?}");
        assert_eq!(chosen(&without_content(&layers, &choice), &choice), whole);
    }
}

#[test]
fn a_name_that_leads_to_what_was_not_stored_is_found() {
    let link_out = [vec![file("out/f", "content"), link("in/g", "out/f")]];
    let path_through = [vec![dir("in"), symlink("s", "in"), file("s/f", "content")]];
    for layers in [&link_out, &path_through] {
        let choice = choice(&["in"], &[]);
        let stored = without_content(layers, &choice);
        assert!(
            matches!(chosen(&stored, &choice), Err(TreeError::LeftOut { path }) if path.starts_with("/in/"))
        );
        assert!(chosen(layers, &choice).unwrap().contains("=content"));
    }
}

fn entries() -> impl Strategy<Value = Vec<LayerEntry>> {
    let name = || prop::sample::select(vec!["a", "b", "a/a", "a/b", "b/a", "b/b/a", "a/b/b"]);
    let one = (name(), name(), 0..7, 1..4usize).prop_map(|(path, other, kind, content)| match kind {
        0 => dir(path),
        1 => symlink(path, other),
        2 => link(path, other),
        3 => whiteout(path),
        4 => opaque(path),
        _ => file(path, &"x".repeat(content)),
    });
    prop::collection::vec(one, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Without the content that a choice leaves out, a tree is the same, or says which content is missing.
    #[test]
    fn nothing_else_is_shown_for_what_was_left_out(
        layers in prop::collection::vec(entries(), 1..4),
        include in prop::sample::subsequence(vec!["a", "a/a", "b/**", "*/b", "b"], 0..3),
        exclude in prop::sample::subsequence(vec!["a/b", "**/a", "b/b"], 0..2),
    ) {
        let choice = choice(&include, &exclude);
        match chosen(&without_content(&layers, &choice), &choice) {
            Err(TreeError::LeftOut { .. }) => {}
            stored => prop_assert_eq!(stored, chosen(&layers, &choice)),
        }
    }
}
