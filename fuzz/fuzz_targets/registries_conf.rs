//! containers-registries.conf(5), which decides where images come from, and which do not come at all.
//!
//! Input: a file. Held, by a lenient reader of the same text: errors are short; a repository that a table blocks by its own
//! name is asked for nowhere; a name that no table can apply to is asked for where it says; tag and digest differ only
//! where a mirror is for one of them.

#![no_main]

use composefs_csi::oci::mirrors::places;
use composefs_csi::oci::reference::{Reference, RegistryReference};
use libfuzzer_sys::fuzz_target;
use toml::{Table, Value};

/// Names of images without tags.
const NAMES: [&str; 5] = [
    "registry.example/team/app",
    "registry.example:5000/team/app",
    "sub.registry.example/app",
    "docker.io/library/busybox",
    "[::1]:5000/x",
];

fn reference(name: &str) -> RegistryReference {
    match format!("{name}:1").parse() {
        Ok(Reference::Registry(reference)) => reference,
        other => panic!("{other:?}"),
    }
}

/// What a table applies to: its prefix, or else its location.
fn prefix(table: &Table) -> &str {
    let text = |key: &str| table.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("prefix").or(text("location")).unwrap_or_default()
}

fuzz_target!(|bytes: &[u8]| {
    for name in NAMES {
        let reference = reference(name);
        let [by_tag, by_digest] = [false, true].map(|digest| places(&reference, digest, None, Some(bytes)));
        for error in [&by_tag, &by_digest].into_iter().filter_map(|found| found.as_ref().err()) {
            assert!(error.len() < 5_000, "{} bytes of an error", error.len());
        }
        assert_eq!(by_tag.is_ok(), by_digest.is_ok(), "{by_tag:?} and {by_digest:?}");
        let (Ok(by_tag), Ok(by_digest)) = (by_tag, by_digest) else { continue };
        let lenient: Table =
            std::str::from_utf8(bytes).expect("UTF-8").parse().expect("what the strict reader reads");
        let empty = Vec::new();
        let registries = lenient.get("registry").and_then(Value::as_array).unwrap_or(&empty);
        let registries: Vec<&Table> = registries.iter().filter_map(Value::as_table).collect();
        // Nothing is longer than the whole name; of the same in another spelling, the first counts.
        let end = name.rsplit('/').next().expect("a part");
        let alike: Vec<_> = registries.iter().filter(|table| prefix(table).trim_end_matches('/').ends_with(end)).collect();
        if let [table] = alike[..]
            && prefix(table) == name
        {
            assert_ne!(table.get("blocked"), Some(&Value::Boolean(true)), "{name} is blocked, and {by_tag:?}");
        }
        let own = {
            let (host, repository) = name.split_once('/').expect("a repository");
            format!("{host}/v2/{repository}")
        };
        if registries.is_empty() {
            assert_eq!((&by_tag, &by_digest), (&vec![own.clone()], &vec![own]), "nothing is said of {name}");
        }
        let is_particular = |table: &&Table| {
            let mirrors = table.get("mirror").and_then(Value::as_array);
            let each = mirrors.map(|all| all.iter().filter_map(Value::as_table).any(|m| m.contains_key("pull-from-mirror")));
            table.contains_key("mirror-by-digest-only") || each == Some(true)
        };
        if !registries.iter().any(|table| is_particular(&table)) {
            assert_eq!(by_tag, by_digest, "no mirror is for tags or digests only");
        }
    }
});
