//! `tests/README.md` against the files: whoever looks there for a test finds it, and every test is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files and directories of the tables' second column; a directory ends in a slash.
fn named() -> BTreeSet<String> {
    let page = std::fs::read_to_string(tests().join("README.md")).unwrap();
    let cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
    let paths = cells.filter_map(|cell| cell.trim().strip_prefix('`')?.strip_suffix('`'));
    paths.filter(|path| path.ends_with(".rs") || path.ends_with('/')).map(str::to_owned).collect()
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// All sources below a directory, by their paths from `tests`.
fn sources(directory: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path.strip_prefix(tests()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn what_the_page_names_exists() {
    let named = named();
    assert!(named.len() > 50, "the page is not read: {named:?}");
    let missing: Vec<_> = named.iter().filter(|path| !tests().join(path).exists()).collect();
    assert_eq!(missing, Vec::<&String>::new(), "tests/README.md names them");
}

/// Of a tier's `main.rs` the page says what the tier is for. Files of tests alone are named, and all of the support.
#[test]
fn every_file_of_tests_is_on_the_page() {
    let mut all = Vec::new();
    sources(&tests(), &mut all);
    let named = named();
    let is_named =
        |path: &str| named.iter().any(|name| path == name || (name.ends_with('/') && path.starts_with(name)));
    let has_tests = |path: &str| {
        let text = std::fs::read_to_string(tests().join(path)).unwrap();
        text.lines().any(|line| matches!(line.trim(), "#[test]") || line.trim().starts_with("#[tokio::test"))
    };
    all.retain(|path| !path.ends_with("/main.rs") && !path.ends_with("/mod.rs") && !is_named(path));
    all.retain(|path| path.starts_with("support/") || has_tests(path));
    assert_eq!(all, Vec::<String>::new(), "tests/README.md must say what they test");
}
