use super::*;

fn conf(texts: &[&str]) -> RegistriesConf {
    let mut conf = RegistriesConf::default();
    for (at, text) in texts.iter().enumerate() {
        conf.add(text.as_bytes(), &format!("{at}.conf")).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    }
    conf
}

fn fault(text: &str) -> Fault {
    RegistriesConf::default().add(text.as_bytes(), "x.conf").expect_err(text)
}

fn applies(conf: &RegistriesConf, name: &str) -> Option<String> {
    conf.lookup(name).map(|(registry, _)| registry.prefix.to_string())
}

#[test]
fn the_longest_prefix_applies() {
    let conf = conf(&[r#"
unqualified-search-registries = ["docker.io"]
short-name-mode = "disabled"
[aliases]
"x" = "r.io/x"
[[registry]]
location = "r.io"
[[registry]]
prefix = "r.io/team"
location = "other.io/team"
[[registry]]
prefix = "*.example.com"
"#]);
    assert_eq!(applies(&conf, "r.io/x").as_deref(), Some("r.io"));
    assert_eq!(applies(&conf, "r.io/team/x").as_deref(), Some("r.io/team"));
    assert_eq!(applies(&conf, "r.io/teams/x").as_deref(), Some("r.io"));
    assert_eq!(applies(&conf, "a.example.com/x").as_deref(), Some("*.example.com"));
    assert_eq!(applies(&conf, "q.io/x"), None);
}

#[test]
fn later_files_replace_entries_of_the_same_prefix_whole() {
    let first = "[[registry]]\nlocation = \"r.io\"\nblocked = true\n[[registry]]\nlocation = \"s.io\"\nblocked = true\n";
    let second = "[[registry]]\nprefix = \"r.io\"\nlocation = \"t.io\"\n";
    let conf = conf(&[first, second]);
    let (registry, _) = conf.lookup("r.io/x").unwrap();
    assert_eq!((registry.blocked, registry.stated.as_str()), (false, "1.conf, line 1"));
    assert!(conf.lookup("s.io/x").unwrap().0.blocked);
}

#[test]
fn of_the_same_prefix_in_one_file_the_first_counts() {
    let conf = conf(&[
        "[[registry]]\nprefix = \"r.io\"\nlocation = \"a.io\"\n\n[[registry]]\nprefix = \"r.io\"\nlocation = \"b.io\"\n",
    ]);
    let (registry, _) = conf.lookup("r.io/x").unwrap();
    assert_eq!(registry.primary.location.as_ref().unwrap().to_string(), "a.io");
}

#[test]
fn mirrors_say_for_what_they_are_asked() {
    let conf = conf(&[r#"
[[registry]]
location = "r.io"
[[registry.mirror]]
location = "a.io/cache"
[[registry.mirror]]
location = "b.io"
insecure = true
pull-from-mirror = "tag-only"
[[registry]]
location = "s.io"
mirror-by-digest-only = true
[[registry.mirror]]
location = "a.io"
"#]);
    let of = |name: &str| {
        let (registry, _) = conf.lookup(name).unwrap();
        let mirror = |mirror: &Mirror| {
            (mirror.source.location.as_ref().unwrap().to_string(), mirror.pulls, mirror.source.hosts.len())
        };
        registry.mirrors.iter().map(mirror).collect::<Vec<_>>()
    };
    let expected = [("a.io/cache".to_owned(), PullFrom::All, 1), ("b.io".to_owned(), PullFrom::TagOnly, 2)];
    assert_eq!(of("r.io/x"), expected);
    assert_eq!(of("s.io/x"), [("a.io".to_owned(), PullFrom::DigestOnly, 1)]);
}

#[test]
fn a_mistake_is_an_error_with_its_line() {
    for (text, line, words) in [
        ("[[registry]]\nlocation = \"https://r.io\"\n", 2, "scheme"),
        ("[[registry]]\nprefix = \"r.io\"\n", 1, "no location"),
        ("[[registry]]\nblocked = true\n", 1, "neither prefix nor location"),
        ("[[registry]]\nlocation = \"r.io\"\nblock = true\n", 3, "\"block\""),
        ("[[registry]]\nlocation = \"r.io\"\nblocked = \"true\"\n", 3, "true or false"),
        ("[[registry]]\nlocation = \"r.io\"\npull-from-mirror = \"all\"\n", 3, "[[registry.mirror]]"),
        ("[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\ninsecure = true\n", 3, "no location"),
        (
            "[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"m.io\"\npull-from-mirror = \"some\"\n",
            5,
            "digest-only",
        ),
        (
            "[[registry]]\nlocation = \"r.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.io\"\npull-from-mirror = \"all\"\n",
            4,
            "exclude each other",
        ),
        (
            "[[registry]]\nlocation = \"r.io\"\n[[registry]]\nprefix = \"s.io\"\nlocation = \"r.io\"\nblocked = true\n",
            3,
            "differs from x.conf, line 1",
        ),
        ("[[registry]]\nprefix = \"*.io/x\"\nlocation = \"r.io\"\n", 2, "*.example.com"),
        ("[registries.block]\nregistries = [\"r.io\"]\n", 1, "version 1"),
        ("[registry]\nlocation = \"r.io\"\n", 1, "[[registry]]"),
        ("unqualified_search = []\n", 1, "unqualified_search"),
    ] {
        let fault = fault(text);
        assert_eq!(fault.line, Some(line), "{text}: {fault}");
        assert!(fault.problem.contains(words), "{text}: {fault}");
    }
}

#[test]
fn the_number_of_registries_is_bounded() {
    let text: String =
        (0..=REGISTRIES_MAX).map(|i| format!("[[registry]]\nlocation = \"r{i}.io\"\n")).collect();
    assert!(fault(&text).problem.contains("4096"));
}
