//! docs/OPERATIONS.md against the errors in the sources: an operator who searches the page for a message finds it.
//!
//! A cell in the first column of a table of that page holds messages, divided by `<br>`. `…` stands for anything, and
//! so does a word in capitals (NAME, N). A message of the sources is found where all that a cell says of it occurs in
//! it, in order. What passes on another error's words and adds less than a word of its own is looked up by that other.

use std::path::{Path, PathBuf};

use regex::Regex;

/// Letters that a message needs to be one, and that a cell must share with it.
const LETTERS: usize = 10;

/// Messages as the sources have them, `…` for what is filled in, with their files.
fn messages() -> Vec<(PathBuf, String)> {
    let attribute = Regex::new(r#"#\[error\(\s*"((?:[^"\\]|\\[\s\S])*)""#).unwrap();
    let filled = Regex::new(r"\{[^{}]*\}").unwrap();
    let continued = Regex::new(r"\\\n\s*").unwrap();
    let mut found = Vec::new();
    for path in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let code = std::fs::read_to_string(&path).unwrap();
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for capture in attribute.captures_iter(code) {
            let text = continued.replace_all(&capture[1], "").replace("\\\"", "\"");
            let text = filled.replace_all(&text, "…").into_owned();
            if letters(&text) >= LETTERS {
                found.push((path.clone(), text));
            }
        }
    }
    found
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn letters(text: &str) -> usize {
    text.chars().filter(char::is_ascii_alphabetic).count()
}

/// The messages of the page, each as the pieces that must occur in order.
fn entries(page: &str) -> Vec<Vec<String>> {
    let anything = Regex::new(r"…|\b[A-Z]{2,}\b|\bN\b|\bM\b").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|-"));
    let cells = rows.filter_map(|row| row.trim_start_matches("| ").split(" | ").next());
    let entries = cells.flat_map(|cell| cell.split("<br>")).map(|message| {
        let plain = message.replace('`', "");
        let pieces = anything.split(&plain).map(|piece| piece.trim().to_owned());
        pieces.filter(|piece| letters(piece) > 0).collect::<Vec<_>>()
    });
    entries.filter(|pieces| pieces.iter().map(|piece| letters(piece)).sum::<usize>() >= LETTERS).collect()
}

fn fits(message: &str, pieces: &[String]) -> bool {
    let mut rest = message;
    pieces.iter().all(|piece| match rest.split_once(piece.as_str()) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[test]
fn every_error_has_its_entry() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let entries = entries(&std::fs::read_to_string(page).unwrap());
    let messages = messages();
    assert!(messages.len() > 150, "only {} messages were found in src/", messages.len());
    let without: Vec<String> = messages
        .iter()
        .map(|(path, message)| (path, message.replace('`', "")))
        .filter(|(_, message)| !entries.iter().any(|pieces| fits(message, pieces)))
        .map(|(path, message)| format!("{}: {message}", path.display()))
        .collect();
    assert!(
        without.is_empty(),
        "{} messages are not in docs/OPERATIONS.md:\n{}",
        without.len(),
        without.join("\n")
    );
}

/// Nobody is helped by a message without a meaning and a remedy.
#[test]
fn every_entry_has_a_meaning_and_a_remedy() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let page = std::fs::read_to_string(page).unwrap();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(cells.len() >= 2 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}

#[test]
fn the_reader_of_the_page_takes_words_for_words() {
    let pieces = &entries("| image NAME is … not here<br>`other` words of it | m | r |")[..];
    assert_eq!(pieces, [vec!["image", "is", "not here"], vec!["other words of it"]]);
    assert!(fits("image … is certainly not here; pull it", &pieces[0]));
    assert!(!fits("not here is image", &pieces[0]));
}
