//! What commands print when all is well.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{node, on_a_terminal, printed, pulled, run};
use crate::support::archive::{archive, noise};
use crate::support::images::{Image, Layout};

#[test]
fn figures_agree_with_their_words_and_with_each_other() {
    let (machine, layout) = node();
    assert_eq!(
        printed(&machine, &["ls"]),
        "IMAGE  MANIFEST  SIZE  ALONE  SHARED  FILES  USE  LAST USED\n0 objects take 0 B on disk; sharing saves 0 B\n"
    );
    pulled(&machine, &layout);
    assert!(printed(&machine, &["verify"]).starts_with("1 image, 2 objects, "));
    let listed = printed(&machine, &["ls"]);
    assert!(listed.contains("2 objects take ") && listed.ends_with("; sharing saves 0 B\n"), "{listed}");
    // A second image with the same large file, and one more.
    let content = noise("large", 10_000);
    let other =
        Layout::of(&Image::new(vec![archive(&[("again", &content), ("more", &noise("more", 5_000))])]));
    pulled(&machine, &other);
    assert_eq!(machine.run(&["ls"])["saved_bytes"], 10_000);
    assert!(printed(&machine, &["ls"]).ends_with("; sharing saves 10.0 kB\n"));
    assert!(printed(&machine, &["prune"]).contains("2 images, 2 layers and 4 objects removed, "));
    let alone = Layout::of(&Image::new(vec![archive(&[("small", b"x")])]));
    pulled(&machine, &alone);
    assert!(printed(&machine, &["ls"]).contains("\n1 object takes "));
    assert!(printed(&machine, &["prune"]).contains("1 image, 1 layer and 1 object removed, "));
}

#[test]
fn a_terminal_of_80_columns_is_wide_enough() {
    let (machine, layout) = node();
    let shown = on_a_terminal(&machine, &["pull", &layout.reference("latest")]);
    assert!(
        shown.iter().any(|line| line.contains("already here") || line.contains("fetched in")),
        "{shown:#?}"
    );
    printed(&machine, &["pin", &layout.reference("latest")]);
    let reference = layout.reference("latest");
    let listed = on_a_terminal(&machine, &["ls"]);
    assert_eq!(listed[0], "IMAGE");
    assert_eq!(listed[2], reference, "{listed:#?}");
    for line in listed.iter().filter(|line| **line != reference) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for command in ["pull", "ls", "node", "seal"] {
        let help = on_a_terminal(&machine, &[command, "--help"]);
        let wide = help.iter().filter(|line| plain(line).chars().count() > 80);
        assert_eq!(wide.collect::<Vec<_>>(), Vec::<&String>::new(), "{command}");
    }
}

/// Without the codes of colours.
fn plain(line: &str) -> String {
    regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap().replace_all(line, "").into_owned()
}

#[test]
fn the_help_of_a_command_begins_with_its_own_options() {
    let (machine, _) = node();
    for (command, own) in [("pull", "--pull-policy"), ("verify", "--repair"), ("node", "--kubelet-dir")] {
        let help = printed(&machine, &[command, "--help"]);
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{command}: no {text} in {help}"));
        let first = help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' '));
        let headings: Vec<_> = first.collect();
        assert!(at("\nOptions:") < at(own) && at(own) < at("\nOptions of all commands:"), "{headings:?}");
        for other in ["Registries:", "Limits on images:", "Which images may be mounted:"] {
            assert!(at(own) < at(&format!("\n{other}")), "{command}: {headings:?}");
        }
    }
}

#[test]
fn shells_get_scripts_that_complete_commands() {
    let (machine, _) = node();
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&machine, &["completions", shell]);
        for word in ["inspect", "--pull-policy", "completions"] {
            let shown = if shell == "fish" { word.trim_start_matches('-') } else { word };
            assert!(script.contains(shown), "{shell}: {word}");
        }
    }
    assert!(!machine.state().exists(), "no store is opened for it");
    let script = printed(&machine, &["completions", "bash"]);
    // As bash does it: the function that `complete` names, with the words of the line.
    let ask = "\nCOMP_WORDS=(composefs-csi insp); COMP_CWORD=1; set -- $(complete -p composefs-csi)\n\
               while [ \"$1\" != -F ]; do shift; done; \"$2\" composefs-csi insp composefs-csi\n\
               echo \"${COMPREPLY[@]}\"\n";
    let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
    bash.stdin.take().unwrap().write_all(format!("{script}{ask}").as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "inspect\n");
    assert_eq!(run(&machine, &["completions", "tcsh"]).status.code(), Some(2));
}
