use super::*;

fn p(text: &str) -> Platform {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

fn chosen<'a>(wanted: &str, offers: &[&'a str]) -> Option<&'a str> {
    let entries: Vec<(Option<Platform>, &str)> =
        offers.iter().map(|offer| ((!offer.is_empty()).then(|| p(offer)), *offer)).collect();
    let entries: Vec<_> = entries.iter().collect();
    match p(wanted).choose(&entries, |entry| entry.0.as_ref()).ok()? {
        Choice::Entry(entry) => Some(entry.1),
        Choice::Ask { otherwise, .. } => Some(otherwise.map_or("?", |entry| entry.1)),
    }
}

#[test]
fn spellings_have_one_form() {
    for (given, shown) in [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/riscv64", "linux/riscv64"),
    ] {
        assert_eq!(p(given).to_string(), shown);
        assert_eq!(p(shown), p(given));
    }
    assert_eq!(Platform::new("", "amd64", None), p("linux/amd64"));
    assert!(Platform::new("", "", None).is_empty());
    for bad in ["", "linux", "linux/", "/amd64", "linux/amd64/v2/x", "linux/am d64", "a/b\n"] {
        assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_node_runs_its_level_and_those_below() {
    assert_eq!(chosen("linux/amd64", &["linux/arm64", "linux/amd64"]), Some("linux/amd64"));
    assert_eq!(chosen("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"]), Some("linux/arm64/v8"));
    assert_eq!(chosen("linux/arm64/v8", &["linux/arm64"]), Some("linux/arm64"));
    let arms = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"];
    assert_eq!(chosen("linux/arm/v7", &arms), Some("linux/arm/v7"));
    assert_eq!(chosen("linux/arm/v6", &arms), Some("linux/arm/v6"));
    assert_eq!(chosen("linux/arm/v7", &arms[..2]), Some("linux/arm/v6"));
    assert_eq!(chosen("linux/arm/v5", &arms[1..]), None);
    let levels = ["linux/amd64/v4", "linux/amd64", "linux/amd64/v2", "linux/amd64/v3"];
    assert_eq!(chosen("linux/amd64/v3", &levels), Some("linux/amd64/v3"));
    assert_eq!(chosen("linux/amd64", &levels), Some("linux/amd64"));
    assert_eq!(chosen("linux/amd64/v3", &levels[..2]), Some("linux/amd64"));
    assert_eq!(chosen("linux/amd64/v2", &levels[..1]), None);
    assert_eq!(chosen("windows/amd64", &levels), None);
}

#[test]
fn named_variants_match_themselves_only() {
    assert_eq!(chosen("linux/ppc64le/power9", &["linux/ppc64le"]), None);
    assert_eq!(
        chosen("linux/ppc64le/power9", &["linux/ppc64le/power8", "linux/ppc64le/power9"]),
        Some("linux/ppc64le/power9")
    );
}

#[test]
fn entries_that_do_not_say_for_what_they_are_come_second() {
    assert_eq!(chosen("linux/amd64", &["", "unknown/unknown", "linux/amd64"]), Some("linux/amd64"));
    assert_eq!(chosen("linux/amd64", &["", "linux/386"]), Some("linux/386"), "if its config says otherwise");
    assert_eq!(chosen("linux/amd64", &["", "linux/arm64"]), Some("?"));
    assert_eq!(chosen("linux/amd64", &["", ""]), Some("?"));
    assert_eq!(chosen("unknown/unknown", &["linux/amd64", "unknown/unknown"]), Some("unknown/unknown"));
    let (here, unknown) = (Some(p("linux/amd64")), Some(p("unknown/unknown")));
    let error = p("linux/s390x").choose(&[&here, &unknown], Option::as_ref).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("linux/s390x") && text.contains("offers linux/amd64, unknown/unknown;"), "{text}");
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn what_is_32_bit_runs_where_nothing_else_does() {
    assert_eq!(chosen("linux/amd64/v3", &["linux/386"]), Some("linux/386"));
    assert_eq!(chosen("linux/amd64", &["linux/386", "linux/amd64"]), Some("linux/amd64"));
    assert_eq!(chosen("linux/amd64/v2", &["linux/386", "linux/amd64/v4"]), Some("linux/386"));
    assert_eq!(chosen("linux/arm64", &["linux/arm/v6", "linux/arm/v7"]), Some("linux/arm/v7"));
    assert_eq!(chosen("linux/arm64/v9", &["linux/arm/v8"]), Some("linux/arm/v8"));
    for (wanted, offered) in
        [("linux/386", "linux/amd64"), ("linux/arm", "linux/arm64"), ("windows/amd64", "linux/386")]
    {
        assert_eq!(chosen(wanted, &[offered]), None, "{wanted}");
    }
}

#[test]
fn the_first_of_equals_wins() {
    let entries = [&(p("linux/amd64"), 1), &(p("linux/amd64"), 2)];
    assert_eq!(p("linux/amd64").choose(&entries, |e| Some(&e.0)), Ok(Choice::Entry(entries[0])));
}

#[test]
fn machines_have_platforms() {
    for (machine, platform) in [
        ("x86_64", "linux/amd64/v2"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("riscv64", "linux/riscv64"),
        ("s390x", "linux/s390x"),
        ("ppc64le", "linux/ppc64le"),
    ] {
        assert_eq!(Platform::of_machine(machine, 2).to_string(), platform);
    }
    // Whatever this machine is, it can run an image built for its own architecture.
    let host = Platform::host();
    assert!(host.to_string().starts_with("linux/"), "{host}");
    assert!(host.suitability(&host).is_some());
}

#[test]
fn the_only_entry_needs_no_platform() {
    assert_eq!(chosen("linux/amd64", &[""]), Some(""));
    assert_eq!(chosen("linux/amd64", &["linux/s390x"]), None);
    assert_eq!(chosen("linux/amd64", &[]), None);
}
