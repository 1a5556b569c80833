//! containerd's hosts.toml, which decides where a registry's images come from.
//!
//! Input: a file. Held, by a lenient reader of the same text: errors are short and repeat no header's value; what is taken
//! has the hosts of the file in their order, but those that serve nothing, and no others; the server is last.

#![no_main]

use composefs_csi::oci::mirrors::places;
use composefs_csi::oci::reference::{Reference, RegistryReference};
use libfuzzer_sys::fuzz_target;
use toml::{Table, Value};

/// Where the seeds have their passwords.
const SECRET: &str = "s3cr3t-9f2c";
const OWN: &str = "registry.example/v2/team/app";

fn reference() -> RegistryReference {
    match "registry.example/team/app:1".parse() {
        Ok(Reference::Registry(reference)) => reference,
        other => panic!("{other:?}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let found = places(&reference(), false, Some(bytes), None);
    let lenient: Option<Table> = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    let shown = format!("{found:?}");
    if let (Some(table), Ok(text)) = (&lenient, std::str::from_utf8(bytes))
        && text.matches(SECRET).count() == 1
        && in_headers(table)
    {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            assert!(error.len() < 5_000, "{} bytes of an error", error.len());
            return;
        }
    };
    let table = lenient.expect("what the strict reader reads");
    let hosts = table.get("host").and_then(Value::as_table).map_or(0, Table::len);
    assert!(found.len() <= hosts + 1, "{found:?} of {hosts} hosts and a server");
    let server = table.get("server").and_then(Value::as_str).unwrap_or_default();
    if hosts == 0 && server.is_empty() {
        assert_eq!(found, [OWN], "nothing is said of where it is");
    }
    for place in &found {
        assert!(place.ends_with("/team/app"), "{place} has another repository");
    }
    // The registry itself is asked once the mirrors have been, whatever they are called.
    let is_own = |place: &String| place.starts_with("registry.example/");
    let own = found.iter().position(is_own);
    assert!(own.is_none_or(|at| found[at..].iter().all(is_own)), "{found:?}");
});

/// Whether the secret is the value of a header. Names are no secrets.
fn in_headers(table: &Table) -> bool {
    let is_secret = |value: &Value| value.as_str().is_some_and(|text| text.contains(SECRET));
    let is_value = |value: &Value| is_secret(value) || value.as_array().is_some_and(|all| all.iter().any(is_secret));
    let holds = |table: &Table| {
        table.get("header").and_then(Value::as_table).is_some_and(|header| header.values().any(is_value))
    };
    let hosts = table.get("host").and_then(Value::as_table);
    holds(table) || hosts.is_some_and(|hosts| hosts.values().filter_map(Value::as_table).any(holds))
}
