//! Modules that the pages under docs/ name are there. Decision records may name what was there when they were written.

use std::path::{Path, PathBuf};

/// The words in backquotes that look like a module of a room of `src`.
fn named_modules(text: &str) -> Vec<Vec<&str>> {
    let is_word = |word: &&str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.map(|word| word.split("::").collect::<Vec<_>>());
    paths.filter(|path| path.len() > 1 && path.iter().all(is_word) && file(&path[..1]).is_some()).collect()
}

/// The file of a module, if there is one.
fn file(path: &[&str]) -> Option<PathBuf> {
    let mut file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    file.extend(path);
    file.set_extension("rs");
    file.exists().then_some(file)
}

/// Whether `path` is a module, or an item that its parent's file names.
fn is_there(path: &[&str]) -> bool {
    let Some((name, parent)) = path.split_last() else { return false };
    let names = |parent: PathBuf| {
        let code = std::fs::read_to_string(parent).unwrap();
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name)
    };
    file(path).is_some() || file(parent).is_some_and(names)
}

#[test]
fn modules_in_the_docs_exist() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (mut named, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(docs).unwrap() {
        let page = entry.unwrap().path();
        if page.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(&page).unwrap();
            for path in named_modules(&text) {
                named += 1;
                if !is_there(&path) {
                    wrong.push(format!("{}: {}", page.display(), path.join("::")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "no such module: {wrong:#?}");
    assert!(named > 20, "the reader finds only {named} modules in the docs");
}

#[test]
fn a_module_that_has_gone_is_noticed() {
    let text = "`image::layer` and `image::layer::intake`, `std::env`, `trust::signature::verify`";
    let found = named_modules(text);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found.iter().map(|path| is_there(path)).collect::<Vec<_>>(), [true, false, true]);
}
