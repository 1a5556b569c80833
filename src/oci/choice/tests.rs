use super::*;

const NONE: [&str; 0] = [];

fn including(patterns: &[&str]) -> Choice {
    Choice::new(patterns.iter().copied(), NONE).unwrap()
}

fn excluding(patterns: &[&str]) -> Choice {
    Choice::new(NONE, patterns.iter().copied()).unwrap()
}

#[test]
fn without_patterns_everything_is_taken() {
    let all = Choice::new(NONE, NONE).unwrap();
    assert!(all.is_all() && all.takes(b"a/b") && all.takes(b"") && all.may_take_below("x"));
    assert_eq!(all.key(&Digest::of(b"m")), Digest::of(b"m"));
    assert_eq!(all, Choice::default());
}

#[test]
fn patterns_are_for_whole_paths_and_take_what_lies_below() {
    for (pattern, taken, left) in [
        ("*.json", &["a.json", "x.json/inside"][..], &["d/a.json", "a.jsonl"][..]),
        ("**/*.json", &["a.json", "d/a.json", "d/e/a.json"], &["a.yaml"]),
        ("d", &["d", "d/a", "d/e/f"], &["da", "e/d"]),
        ("/d/", &["d/a"], &["e"]),
        ("./d/**", &["d/a", "d/e/f"], &["e"]),
        ("d/*/f", &["d/e/f", "d/e/f/g"], &["d/f", "d/e/e/f"]),
        ("d/**/f", &["d/f", "d/e/f", "d/e/e/f"], &["f"]),
        ("model-0000[1-3]-of-?.gguf", &["model-00002-of-9.gguf"], &["model-00004-of-9.gguf"]),
        ("{a,b/c}.txt", &["a.txt", "b/c.txt"], &["c.txt"]),
        (r"a\*b", &["a*b"], &["axb"]),
        ("日本語/*.txt", &["日本語/ファイル é.txt"], &["日本/x.txt"]),
        (".*", &[".git/config", ".x"], &["a/.x"]),
    ] {
        let (included, excluded) = (including(&[pattern]), excluding(&[pattern]));
        for path in taken {
            assert!(included.takes(path.as_bytes()), "{pattern} takes {path}");
            assert!(!excluded.takes(path.as_bytes()), "{pattern} leaves {path} out");
        }
        for path in left {
            assert!(!included.takes(path.as_bytes()), "{pattern} does not take {path}");
            assert!(excluded.takes(path.as_bytes()), "{pattern} does not leave {path} out");
        }
    }
    assert!(including(&["**"]).takes(b"\xff\xfe/x"), "names are bytes");
}

#[test]
fn what_is_excluded_is_not_included_again() {
    let choice = Choice::new(["models/**"], ["models/old", "**/*.bak"]).unwrap();
    assert!(choice.takes(b"models/a"));
    for left in ["models/old/a", "models/x.bak", "readme"] {
        assert!(!choice.takes(left.as_bytes()), "{left}");
    }
    assert_eq!(choice.to_string(), r#"include "models/**" and exclude "**/*.bak", "models/old""#);
}

#[test]
fn directories_that_nothing_is_taken_of_are_known_before() {
    let choice = Choice::new(["models/a/*.bin", "x", "*/y"], ["models/a/old"]).unwrap();
    for may in ["models", "models/a", "x", "x/deep", "z"] {
        assert!(choice.may_take_below(may), "{may}");
    }
    assert!(!including(&["models/a/*"]).may_take_below("models/b"));
    assert!(!choice.may_take_below("models/a/old/deep"));
    assert!(excluding(&["a"]).may_take_below("b") && !excluding(&["a"]).may_take_below("a/b"));
}

#[test]
fn what_matches_nothing_is_named() {
    let choice = including(&["a", "b/*"]);
    let mut used = choice.unused();
    assert!(choice.takes_noting(b"a/x", &mut used));
    let error = choice.check_used(&used).unwrap_err();
    assert_eq!(error, ChoiceError::Unmatched { pattern: "b/*".to_owned() });
    assert!(choice.takes_noting(b"b/c", &mut used));
    assert_eq!(choice.check_used(&used), Ok(()));
}

#[test]
fn malformed_patterns_are_refused_by_name() {
    for pattern in ["", "/", ".", "../a", "a/../b", "a//b", "a\nb", "a[", "{a", "a\\"] {
        let error = Choice::new([pattern], NONE).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("{pattern:?}")) && text.contains("`include`"), "{text}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
    assert!(matches!(Choice::new(vec!["a"; 65], NONE), Err(ChoiceError::TooMany { count: 65, .. })));
    assert!(matches!(Choice::new(["a".repeat(5000)], NONE), Err(ChoiceError::TooMany { .. })));
    // As much as is allowed is compiled.
    let nested = format!("{}a{}", "{a,**/".repeat(500), "}".repeat(500));
    let _ = Choice::new([nested], NONE);
    let many: Vec<String> = (0..64).map(|n| format!("**/{n}*?[a-z]*{{x,y}}")).collect();
    assert!(Choice::new(many, NONE).unwrap().takes(b"q/7..b.x"));
}

#[test]
fn lists_have_a_pattern_on_each_line() {
    let choice = Choice::of_lines(Some("\n  b/*\n\na, b\n"), None).unwrap();
    assert_eq!(choice.include(), ["a, b", "b/*"]);
    assert_eq!(Choice::of_lines(Some(" \n"), None), Err(ChoiceError::Empty("include")));
    assert_eq!(Choice::of_lines(None, Some("")), Err(ChoiceError::Empty("exclude")));
    assert!(Choice::of_lines(None, None).unwrap().is_all());
}

#[test]
fn the_same_patterns_are_the_same_choice() {
    let (one, two) = (including(&["a", "b", "a"]), including(&["/b/", "./a"]));
    let of = Digest::of(b"m");
    assert_eq!((&one, one.key(&of)), (&two, two.key(&of)));
    let others = [including(&["a"]), excluding(&["a", "b"]), Choice::new(["a"], ["b"]).unwrap()];
    for other in others {
        assert!(other != one && other.key(&of) != one.key(&of) && other.key(&of) != of);
    }
    assert_ne!(one.key(&of), one.key(&Digest::of(b"n")));
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(text, r#"{"include":["a","b"]}"#);
    assert_eq!(serde_json::from_str::<Choice>(&text).unwrap(), one);
    assert!(serde_json::from_str::<Choice>(r#"{"include":["../a"]}"#).is_err());
}
