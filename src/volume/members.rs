//! The list of several images for one volume: the grammar of the attribute `images`. Pure.
//!
//! The list is YAML, of which JSON is a part. Whoever writes a pod writes it, so it is bounded before it is read: its
//! length, its depth, the number of its entries; it can have no anchors and aliases, which make short texts long.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::attributes::{AttributeError, Attributes, IMAGES, sub_path};
use super::upper::{self, UpperError};

/// The most images of a volume.
const MEMBERS_MAX: usize = 32;
/// Bytes of the list: some 1,000 for each of the entries.
const TEXT_MAX: usize = 32 << 10;
/// Where the volume shows an image.
const AT: &str = "at";

/// One of a volume's images, and where the volume shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The directory of the volume, relative; empty for its root.
    pub at: PathBuf,
    /// Its own attributes.
    pub attributes: Attributes,
}

/// The entries of the list as they are written: attributes by name.
type Entry = BTreeMap<String, String>;

/// Parses the list. What an entry does not say is as `defaults` say.
///
/// # Errors
/// The text is no such list, or an entry is malformed; the error has its number.
pub(super) fn parse(text: &str, defaults: &HashMap<String, String>) -> Result<Vec<Member>, AttributeError> {
    let entries = entries(text)?;
    let numbered = entries.into_iter().enumerate();
    numbered
        .map(|(index, entry)| {
            let about = |error| AttributeError::Member { number: index + 1, error: Box::new(error) };
            member(entry, defaults).map_err(about)
        })
        .collect()
}

fn member(mut entry: Entry, defaults: &HashMap<String, String>) -> Result<Member, AttributeError> {
    let at = entry.remove(AT).ok_or(AttributeError::NoPlace)?;
    if let Some(key) = upper::KEYS.into_iter().find(|key| entry.contains_key(*key)) {
        return Err(UpperError::OfOneImage(key).into());
    }
    let mut context = defaults.clone();
    context.extend(entry);
    // These come from Kubernetes, and never for one of the images.
    if let Some(foreign) = context.keys().find(|key| key.contains('/')) {
        return Err(AttributeError::Unknown(foreign.chars().take(128).collect()));
    }
    Ok(Member { at: sub_path(AT, &at)?, attributes: Attributes::parse(&context)?.0 })
}

fn entries(text: &str) -> Result<Vec<Entry>, AttributeError> {
    if text.len() > TEXT_MAX {
        return Err(no_list(format!("has {} bytes, and {TEXT_MAX} are allowed", text.len())));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_merge_keys: 0,
            max_documents: 1,
            // The list, its entries, and one more for a better message.
            max_depth: 3,
            flow_nesting_limit: 3,
        },
        with_snippet: false,
    };
    let entries: Vec<Entry> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(" at its line {}", at.line()));
        no_list(format!("is no list of maps of texts{place}"))
    })?;
    match entries.len() {
        0 => Err(no_list("is empty".to_owned())),
        count if count > MEMBERS_MAX => Err(no_list(format!("has {count} entries"))),
        _ => Ok(entries),
    }
}

fn no_list(problem: String) -> AttributeError {
    AttributeError::List { problem, most: MEMBERS_MAX }
}

/// The list, as JSON: what [`parse`] reads as the same.
pub(super) fn render(members: &[Member]) -> String {
    let entry = |member: &Member| {
        let mut entry: Entry = member.attributes.context_with(&member.attributes.image).into_iter().collect();
        entry.insert(AT.to_owned(), place(&member.at));
        entry
    };
    // Maps of texts always have a form in JSON.
    serde_json::to_string(&members.iter().map(entry).collect::<Vec<_>>())
        .unwrap_or_else(|_| IMAGES.to_owned())
}

/// The directory as it is written: the root is a slash, because nothing is easily forgotten.
fn place(at: &Path) -> String {
    if at.as_os_str().is_empty() { "/".to_owned() } else { at.to_string_lossy().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_list(text: &str) -> Result<Vec<Member>, AttributeError> {
        parse(text, &HashMap::new())
    }

    #[test]
    fn yaml_and_json_and_back() {
        let yaml = "
- image: r.io/base:1
  at: /base/./x/
  path: models
  pullPolicy: Never
- {image: r.io/adapter:1, at: /, noexec: true, verify: mount, platform: linux/arm64}
";
        let members = parse_list(yaml).unwrap();
        assert_eq!(members[0].at, Path::new("base/x"));
        assert_eq!(members[0].attributes.path, Path::new("models"));
        assert_eq!((members[1].at.as_path(), members[1].attributes.noexec), (Path::new(""), true));
        assert_eq!(parse_list(&render(&members)).unwrap(), members);
        let json = r#"[{"image": "r.io/a:1", "at": "a"}]"#;
        assert_eq!(parse_list(json).unwrap()[0].at, Path::new("a"));
    }

    #[test]
    fn an_entry_says_more_than_the_defaults() {
        let defaults = HashMap::from([("pullPolicy".to_owned(), "Never".to_owned())]);
        let text = "[{image: r.io/a:1, at: a}, {image: r.io/b:1, at: b, pullPolicy: Always}]";
        let members = parse(text, &defaults).unwrap();
        let policy = |member: &Member| format!("{:?}", member.attributes.policy());
        assert_eq!(members.iter().map(policy).collect::<Vec<_>>(), ["Never", "Always"]);
    }

    #[test]
    fn refusals_name_the_entry() {
        let good = "{image: r.io/a:1, at: a}";
        let many = format!("[{}]", vec![good; MEMBERS_MAX + 1].join(", "));
        let long = format!("[{good}] #{}", "x".repeat(TEXT_MAX));
        let second = |entry: &str| format!("[{good}, {entry}]");
        for (text, words) in [
            ("", "is empty"),
            ("[]", "is empty"),
            ("r.io/a:1", "list of maps"),
            ("{image: r.io/a:1, at: a}", "list of maps"),
            ("[r.io/a:1]", "list of maps"),
            ("- image: [r.io/a:1]\n  at: a", "list of maps"),
            ("- image: r.io/a:1\n  at: a\n  at: b", "list of maps"),
            ("[{image: r.io/a:1, at: a}", "list of maps"),
            ("[{image: r.io/a:1, at: a}]\n---\n[]", "list of maps"),
            (many.as_str(), "has 33 entries"),
            (long.as_str(), "bytes, and 32768 are allowed"),
            (&second("{at: b}"), "entry 2: volume attribute `image` is missing"),
            (&second("{image: r.io/b:1}"), "entry 2: `at` is missing"),
            (&second("{image: r.io/b:1, at: ../b}"), "entry 2: volume attribute `at`"),
            (&second("{image: r.io/b:1, at: b, imgae: x}"), "entry 2: volume attribute \"imgae\""),
            (&second("{image: r.io/b:1, at: b, images: '[]'}"), "entry 2: volume attribute `images`"),
            (
                &second("{image: r.io/b:1, at: b, csi.storage.k8s.io/pod.name: x}"),
                "entry 2: volume attribute",
            ),
            (&second("{image: b, at: b}"), "entry 2: volume attribute `image`"),
        ] {
            let error = parse_list(text).expect_err(text);
            assert!(error.to_string().contains(words), "{text}: {error} should hold {words:?}");
        }
    }

    #[test]
    fn what_grows_when_it_is_read_is_refused() {
        let entry = "{image: r.io/a:1, at: a}";
        let bomb = format!("- &a {entry}\n- *a\n");
        let merged = format!("- &a {entry}\n- <<: *a\n  at: b\n");
        let deep = format!("{}{}", "[".repeat(8_000), "]".repeat(8_000));
        let blocks = (0..120).map(|depth| format!("{}-\n", " ".repeat(depth))).collect::<String>();
        for text in [bomb, merged, deep, blocks] {
            let error = parse_list(&text).unwrap_err().to_string();
            assert!(error.contains("list of maps") && error.len() < 400, "{error}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_text_is_too_odd(text in "[\\[\\]{}:,\\-?&*!|>'\"%@`# \\n\\tab0./]{0,200}") {
            let _ = parse_list(&text);
        }
    }
}
