use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn parse(text: &str) -> Reference {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn canonical_forms() {
    let pinned = format!("r.io/a@{DIGEST}");
    let both = format!("r.io/a:1@{DIGEST}");
    let layout_pinned = format!("oci:dir@{DIGEST}");
    for (given, shown) in [
        ("docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("index.docker.io/a/b:1", "docker.io/a/b:1"),
        ("docker://Quay.IO/a/b-c/d__e:V1.0", "quay.io/a/b-c/d__e:V1.0"),
        ("localhost/x:1", "localhost/x:1"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("[::1]/x:1", "[::1]/x:1"),
        ("[0:0:0:0:0:0:0:1]/x:1", "[::1]/x:1"),
        ("[::ffff:127.0.0.1]:5000/x:1", "127.0.0.1:5000/x:1"),
        ("r.io:443/x:1", "r.io/x:1"),
        ("registry-1.docker.io/busybox:1", "docker.io/library/busybox:1"),
        (&pinned, &pinned),
        (&both, &both),
        ("oci:/var/lib/img", "oci:/var/lib/img"),
        ("oci:../img:v1", "oci:../img:v1"),
        ("oci:img:docker.io/library/a:1", "oci:img:docker.io/library/a:1"),
        (&layout_pinned, &layout_pinned),
    ] {
        let reference = parse(given);
        assert_eq!(reference.to_string(), shown, "{given}");
        assert_eq!(parse(shown), reference, "{given}");
    }
}

#[test]
fn the_digest_decides_and_the_tag_stays() {
    let reference = parse(&format!("r.io/a:1@{DIGEST}"));
    assert_eq!(reference.version(), Version::Digest(DIGEST.parse().unwrap()));
    assert_eq!(reference.tag(), Some("1"));
    assert_eq!(reference.name(), "r.io/a");
    assert_eq!(parse("r.io/a:1").pinned(DIGEST.parse().unwrap()), reference);
    assert_eq!(parse("r.io/a").version(), Version::Tag("latest".into()));
    assert_eq!(parse("oci:d").version(), Version::Sole);
    assert_eq!(parse("oci:d:x:y").version(), Version::Tag("x:y".into()));
}

#[test]
fn docker_hub_answers_elsewhere() {
    let Reference::Registry(hub) = parse("docker.io/library/busybox") else { panic!() };
    assert_eq!((hub.host(), api_host(hub.host())), ("docker.io", "registry-1.docker.io"));
    let Reference::Registry(other) = parse("quay.io/a/b") else { panic!() };
    assert_eq!(api_host(other.host()), "quay.io");
}

#[test]
fn short_names_are_refused_with_the_full_one() {
    for (given, full) in [
        ("busybox", "docker.io/library/busybox"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("me/app", "docker.io/me/app"),
    ] {
        let error = given.parse::<Reference>().unwrap_err();
        assert!(error.to_string().ends_with(&format!("write {full}")), "{error}");
    }
}

#[test]
fn malformed_references_are_refused() {
    let long = format!("r.io/{}", "a".repeat(251));
    let long_tag = format!("r.io/a:{}", "t".repeat(129));
    for bad in [
        "",
        "r.io/",
        "r.io//a",
        "r.io/a/",
        "r.io/A",
        "r.io/a..b",
        "r.io/a___b",
        "r.io/-a",
        "r.io/a:",
        "r.io/a:.x",
        "r.io/a:x/y",
        "r.io/a b",
        "r.io/../x",
        "r.io:/a",
        "r.io:0/a",
        "r.io:065/a",
        "r.io:65536/a",
        "r.io:+5/a",
        "r_o.io/a",
        "-r.io/a",
        "r..io/a",
        "r.io./a",
        "127.1/a",
        "0x7f.1/a",
        "2130706433:5000/a",
        "127.0.0.1:080/a",
        "0.0.0.0:5000/a",
        "oci:/a\nERROR forged",
        "oci:/a\u{2028}b",
        "oci:/a\u{202e}b",
        "oci:/a\u{1b}[2J",
        "r.io/a\n",
        "[::g]/a",
        "r.io/a@sha256:00",
        "r.io/a@sha512:00",
        "r.io/a@",
        "user:pw@r.io/a",
        "https://r.io/a",
        "oci:",
        "oci::tag",
        "oci:dir:",
        "oci:dir:sp ace",
        "oci:dir@sha256:00",
        "oci:a\0b",
        &long,
        &long_tag,
    ] {
        let error = bad.parse::<Reference>();
        assert!(error.is_err(), "{bad} gave {error:?}");
    }
}

impl LayoutReference {
    /// The same reference with its directory made absolute, relative to `base`. `None` if a reference
    /// cannot hold the resulting path.
    fn absolute(&self, base: &Path) -> Option<Self> {
        let path = base.join(&self.directory);
        let directory = path.to_str().filter(|text| !text.contains(':'))?.to_owned();
        Some(Self { directory, ..self.clone() })
    }
}

#[test]
fn relative_layouts_become_absolute() {
    let Reference::Layout(layout) = parse("oci:img:v1") else { panic!() };
    let absolute = Reference::Layout(layout.absolute(Path::new("/srv")).unwrap());
    assert_eq!(absolute.to_string(), "oci:/srv/img:v1");
    assert!(layout.absolute(Path::new("/s:v")).is_none());
}

proptest! {
    #[test]
    fn display_round_trips(
        host in "([a-zA-Z0-9]([a-z0-9-]{0,8}[a-z0-9])?\\.){1,3}[a-z]{2,5}(:[1-9][0-9]{0,3})?",
        repository in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,5}){0,3}",
        tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}"),
        digest in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let mut text = format!("{host}/{repository}");
        if let Some(tag) = tag { text = format!("{text}:{tag}"); }
        if let Some(digest) = digest { text = format!("{text}@{}", Digest::from_bytes(digest)); }
        let reference = text.parse::<Reference>().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
    }

    /// The other grammar knows neither IPv6 hosts nor layouts, and leaves the case of a host as it is.
    #[test]
    fn another_grammar_reads_the_same(
        text in "([a-z0-9]{1,5}\\.){0,2}[a-z0-9]{1,5}(:[1-9][0-9]{0,3})?/[a-z0-9._-]{1,8}(/[a-z0-9_]{1,3}){0,2}(:[a-zA-Z0-9._-]{1,8})?",
        digest in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let text = match digest {
            Some(digest) => format!("{text}@{}", Digest::from_bytes(digest)),
            None => text,
        };
        if let Ok(Reference::Registry(ours)) = text.parse::<Reference>() {
            let theirs = text.parse::<oci_client::Reference>();
            let theirs = theirs.map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
            prop_assert_eq!(theirs.to_string(), Reference::Registry(ours).to_string());
        }
    }

    #[test]
    fn whatever_parses_round_trips(text in "(oci:)?[a-zA-Z0-9._:@/\\[\\]-]{0,60}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
        }
    }

    #[test]
    fn nothing_panics(text in any::<String>()) {
        let _ = text.parse::<Reference>();
    }
}
