//! Short words for entries, and a short view of trees.

use super::*;

pub fn meta(mode: u32) -> Meta {
    Meta { mode, uid: 1, gid: 2, mtime: Mtime { secs: 7, nanos: 0 }, xattrs: vec![] }
}

pub fn entry(path: &str, kind: EntryKind) -> LayerEntry {
    LayerEntry { path: path.as_bytes().into(), meta: meta(0o644), kind }
}

pub fn dir(path: &str) -> LayerEntry {
    LayerEntry { meta: meta(0o700), ..entry(path, EntryKind::Directory) }
}

pub fn file(path: &str, content: &str) -> LayerEntry {
    entry(path, EntryKind::Inline(content.as_bytes().into()))
}

pub fn symlink(path: &str, target: &str) -> LayerEntry {
    entry(path, EntryKind::Symlink(target.as_bytes().into()))
}

pub fn link(path: &str, target: &str) -> LayerEntry {
    entry(path, EntryKind::Hardlink(target.as_bytes().into()))
}

pub fn whiteout(path: &str) -> LayerEntry {
    entry(path, EntryKind::Whiteout)
}

pub fn opaque(path: &str) -> LayerEntry {
    entry(path, EntryKind::Opaque)
}

pub fn build(rules: Rules, layers: &[Vec<LayerEntry>]) -> Result<CheckedTree, TreeError> {
    let mut builder = Builder::new(rules);
    for entries in layers {
        let mut layer = builder.layer();
        for entry in entries {
            layer.apply(entry.clone())?;
        }
        layer.end()?;
    }
    builder.finish()
}

pub fn dump(tree: &CheckedTree) -> String {
    let mut bytes = Vec::new();
    write_dump(tree, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// One word for each path below the root: `a/` (a directory as entries of these tests describe it),
/// `a/?` (one that no layer describes), `f=content`, `l->target`, `h==first name`.
pub fn view(tree: &CheckedTree) -> String {
    let words: Vec<String> = dump(tree).lines().skip(1).map(word).collect();
    words.join(" ")
}

fn word(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let (path, mode) = (&fields[0][1..], fields[2]);
    match mode {
        "@120000" => format!("{path}=={}", &fields[8][1..]),
        "40700" => format!("{path}/"),
        "40755" => {
            assert_eq!(fields[4..8], ["0", "0", "0", "0.0"], "{line}");
            format!("{path}/?")
        }
        _ if mode.starts_with("12") => format!("{path}->{}", fields[8]),
        _ if mode.starts_with("100") => format!("{path}={}", fields[9].trim_start_matches('-')),
        _ => format!("{path}:{mode}"),
    }
}

/// The view of folded layers with all that they hold.
pub fn fold(layers: &[Vec<LayerEntry>]) -> String {
    view(&build(Rules::Verbatim, layers).unwrap())
}

/// Why layers do not fold.
pub fn refusal(layers: &[Vec<LayerEntry>]) -> TreeError {
    build(Rules::Verbatim, layers).unwrap_err()
}
