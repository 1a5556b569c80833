//! Parts of artifacts, which stand next to each other.

use super::fixtures::*;
use super::*;
use crate::oci::artifact::Place;

/// The view of parts, each an archive.
fn placed(parts: &[Vec<LayerEntry>]) -> Result<Vec<String>, TreeError> {
    let mut builder = Builder::new(Rules::Verbatim);
    for entries in parts {
        let mut layer = builder.layer();
        entries.iter().try_for_each(|entry| layer.place(entry.clone(), &Place::Archive { within: None }))?;
        layer.end()?;
    }
    let dump = dump(&builder.finish()?);
    Ok(dump.lines().skip(1).map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect())
}

#[test]
fn what_stands_at_a_path_stays_there_whichever_part_brought_it() {
    let fits = [vec![dir("a"), file("a/f", "1"), file("b/g", "1")], vec![file("a/h", "2"), dir("a")]];
    let names = ["/a", "/a/f", "/a/h", "/b", "/b/g"];
    assert_eq!(placed(&fits).unwrap(), names);
    assert_eq!(placed(&[fits.concat()]).unwrap(), names);
    for (first, second) in [
        (file("a", "1"), file("a", "2")),
        (file("a", "1"), dir("a")),
        (file("a", "1"), file("a/b", "1")),
        (file("a/b", "1"), file("a", "1")),
        (symlink("a", "b"), file("a/b", "1")),
    ] {
        let path = String::from_utf8_lossy(&second.path).into_owned();
        let refused = TreeError::Collision { path: format!("/{path}") };
        for parts in
            [vec![vec![first.clone()], vec![second.clone()]], vec![vec![first.clone(), second.clone()]]]
        {
            assert_eq!(placed(&parts).unwrap_err(), refused, "{first:?} {second:?}");
        }
    }
    // The same again is no collision.
    let twice = vec![file("a", "1"), dir("d"), symlink("l", "a")];
    assert_eq!(placed(&[twice.clone(), twice.clone()]).unwrap(), ["/a", "/d", "/l"]);
    assert_eq!(placed(&[[twice.clone(), twice].concat()]).unwrap(), ["/a", "/d", "/l"]);
}
