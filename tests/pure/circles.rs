//! No two files of the program need each other, however many lie in between.
//!
//! Read from the imports: a name that a module hands on (`pub use`) counts as its owner's. What a module and the
//! modules below it take from each other is no circle: they are one room with its furniture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module with a file of its own, as the segments of its path from the crate's root.
type Module = Vec<String>;

/// What a module's file says.
#[derive(Default)]
struct File {
    /// Every path that it names, from the crate's root.
    paths: BTreeSet<Vec<String>>,
    /// Names that it takes from elsewhere, and may hand on: name to path.
    names: BTreeMap<String, Vec<String>>,
}

/// The tokens of Rust code that paths consist of; the rest is one dot each.
fn tokens(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        if !token.trim().is_empty() {
            found.push(token.to_owned());
        }
        rest = after;
    }
    found
}

/// The paths of a `use` tree that begins at `tokens[0]`, each with the name that it gets; and how many tokens it has.
fn tree(tokens: &[String], base: &[String]) -> (Vec<(Vec<String>, String)>, usize) {
    let mut path = base.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at).map_or("", String::as_str) {
            "{" => {
                let mut found = Vec::new();
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let (inner, length) = tree(&tokens[at..], &path);
                    found.extend(inner);
                    at += length + usize::from(tokens.get(at + length).is_some_and(|token| token == ","));
                }
                return (found, at + 1);
            }
            "*" => return (vec![(path, String::new())], at + 1),
            "self" if at > 0 || !base.is_empty() => {}
            segment => path.push(segment.to_owned()),
        }
        at += 1;
        match tokens.get(at).map_or("", String::as_str) {
            "::" => at += 1,
            "as" => return (vec![(path, tokens[at + 1].clone())], at + 2),
            _ => {
                let name = path.last().cloned().unwrap_or_default();
                return (vec![(path, name)], at);
            }
        }
    }
}

/// The path from the crate's root of one that `module` names; `None` for other crates'.
fn absolute(path: &[String], module: &Module, modules: &BTreeSet<Module>) -> Option<Vec<String>> {
    let mut base = module.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" => rest = &path[1..],
        "super" => {}
        first => {
            base.push(first.to_owned());
            return modules.contains(&base).then(|| [module.as_slice(), path].concat());
        }
    }
    while rest.first().is_some_and(|segment| segment == "super") {
        base.pop();
        rest = &rest[1..];
    }
    Some([base.as_slice(), rest].concat())
}

fn read(code: &str, module: &Module, modules: &BTreeSet<Module>) -> File {
    let tokens = tokens(code);
    let mut file = File::default();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "use" {
            let (found, length) = tree(&tokens[at + 1..], &[]);
            for (path, name) in found {
                if let Some(path) = absolute(&path, module, modules) {
                    file.names.insert(name, path.clone());
                    file.paths.insert(path);
                }
            }
            at += length + 1;
            continue;
        }
        let begins = ["crate", "super"].contains(&tokens[at].as_str());
        if begins && tokens.get(at + 1).is_some_and(|token| token == "::") {
            let mut end = at;
            while tokens.get(end + 1).is_some_and(|token| token == "::") && end + 2 < tokens.len() {
                end += 2;
            }
            let path: Vec<_> = tokens[at..=end].iter().step_by(2).cloned().collect();
            file.paths.extend(absolute(&path, module, modules));
            at = end;
        }
        at += 1;
    }
    file
}

/// The module that owns what `path` names, through as many that hand it on as there are.
fn owner(path: &[String], files: &BTreeMap<Module, File>) -> Option<Module> {
    let mut path = path.to_vec();
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|&length| files.contains_key(&path[..length]))?;
        let module = path[..length].to_vec();
        let handed = path.get(length).and_then(|name| files[&module].names.get(name));
        match handed {
            Some(to) => path = [to.as_slice(), &path[length + 1..]].concat(),
            None => return Some(module),
        }
    }
    None
}

fn is_above(above: &[String], below: &[String]) -> bool {
    below.starts_with(above)
}

/// The groups of modules that need each other, by Tarjan's rule: what reaches a module that reaches it.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<String>> {
    let reach = |from: &Module| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(module) = todo.pop() {
            for next in arrows.get(module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = arrows.keys().map(|module| (module, reach(module))).collect();
    let mut found = BTreeSet::new();
    for (module, reaches) in &reached {
        if reaches.contains(*module) {
            let circle =
                reaches.iter().filter(|other| reached.get(other).is_some_and(|r| r.contains(*module)));
            found.insert(circle.map(|module| module.join("::")).collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

fn arrows(code: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let modules: BTreeSet<_> = code.keys().cloned().collect();
    let files: BTreeMap<_, _> =
        code.iter().map(|(module, code)| (module.clone(), read(code, module, &modules))).collect();
    let mut arrows = BTreeMap::new();
    for (from, file) in &files {
        let to = file.paths.iter().filter_map(|path| owner(path, &files));
        let to = to.filter(|to| !is_above(to, from) && !is_above(from, to));
        arrows.insert(from.clone(), to.collect());
    }
    arrows
}

/// The code of every module, without comments, strings that could look like code being rare, and without tests.
fn program() -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut todo: Vec<PathBuf> = vec![root.clone()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let module: Module = path
                .strip_prefix(&root)
                .unwrap()
                .with_extension("")
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            let test = |part: &String| part == "tests" || part == "testing" || part.ends_with("_tests");
            if !module.iter().any(test) {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                let lines: Vec<_> =
                    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
                found.insert(if module == ["lib"] { Vec::new() } else { module }, lines.join("\n"));
            }
        }
    }
    found
}

#[test]
fn no_files_need_each_other() {
    let found = circles(&arrows(&program()));
    assert!(found.is_empty(), "circles of files: {found:#?}");
}

#[test]
fn the_reader_finds_circles_through_names_that_are_handed_on() {
    let code = |files: &[(&str, &str)]| -> BTreeMap<Module, String> {
        files
            .iter()
            .map(|(module, code)| (module.split("::").map(str::to_owned).collect(), (*code).to_owned()))
            .collect()
    };
    let direct = code(&[
        ("a", "mod b; mod c; pub use b::B; pub use c::{self, C};"),
        ("a::b", "use super::C;"),
        ("a::c", "fn f() { super::b::g() }"),
    ]);
    assert_eq!(circles(&arrows(&direct)), [["a::b", "a::c"]]);
    let none = code(&[
        ("a", "mod b; mod c; pub use b::{B, inner::{D as E}}; struct A;"),
        ("a::b", "use super::A; use std::fmt;"),
        ("a::b::inner", "use crate::a::{A, c::C};"),
        ("a::c", "use super::{A};"),
        ("d", "use crate::a::{b::B, E};"),
    ]);
    assert_eq!(circles(&arrows(&none)), Vec::<Vec<String>>::new());
    let to: Vec<_> = arrows(&none)[&vec!["d".to_owned()]].iter().map(|to| to.join("::")).collect();
    assert_eq!(to, ["a::b", "a::b::inner"]);
}
