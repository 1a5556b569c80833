//! The operator's commands, as a terminal or a script sees them: their words, their exit codes, and what stays behind.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, mounts_below};
use crate::support::images::{Image, Layout};

mod explain;
mod failures;
mod output;

/// A node, and a layout with one image of a directory and two files.
fn node() -> (Machine, Layout) {
    let layout = Layout::of(&Image::new(vec![archive(&[
        ("d/", b""),
        ("d/large", &noise("large", 10_000)),
        ("small", b"small"),
    ])]));
    (Machine::new(&[]), layout)
}

fn run(machine: &Machine, arguments: &[&str]) -> Output {
    machine.command(arguments).output().expect("the program")
}

/// What a successful command prints.
fn printed(machine: &Machine, arguments: &[&str]) -> String {
    let output = run(machine, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What the command shows on a terminal with 80 columns, line by line.
pub fn on_a_terminal(machine: &Machine, arguments: &[&str]) -> Vec<String> {
    let command = machine.command(arguments);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> =
        words.map(|word| format!("'{}'", word.to_str().expect("UTF-8").replace('\'', "'\\''"))).collect();
    let line = format!("stty columns 80 rows 24; exec {}", quoted.join(" "));
    let shown = Command::new("script").args(["-q", "-c", &line, "/dev/null"]).output().expect("script(1)");
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

fn pulled(machine: &Machine, layout: &Layout) -> String {
    let pulled = machine.run(&["pull", &layout.reference("latest")]);
    pulled["manifest"].as_str().expect("a digest").to_owned()
}

#[test]
fn an_image_is_named_by_reference_or_digest() {
    let (machine, layout) = node();
    let manifest = pulled(&machine, &layout);
    let digits = manifest.strip_prefix("sha256:").unwrap();
    let reference = layout.reference("latest");
    let short = &digits[..12];
    let names = [
        &reference,
        &manifest,
        &format!("@{manifest}"),
        digits,
        short,
        &format!("sha256:{short}"),
        &digits[..6],
    ];
    for name in names {
        assert_eq!(machine.run(&["inspect", name])["manifest"], *manifest, "{name}");
        assert_eq!(machine.run(&["verify", name])["images"], 1, "{name}");
        for (command, pinned) in [("pin", true), ("unpin", false)] {
            let answer = machine.run(&[command, name]);
            assert_eq!((&answer["manifest"], &answer["pinned"]), (&manifest.clone().into(), &pinned.into()));
            let listed = machine.run(&["ls"]);
            assert_eq!(listed["images"][0]["pinned"], pinned, "{command} {name}");
        }
    }
}

#[test]
fn files_are_listed_for_people_and_for_programs() {
    let (machine, layout) = node();
    let manifest = pulled(&machine, &layout);
    let dump = printed(&machine, &["inspect", "--files", &manifest]);
    let listed = machine.run(&["inspect", "--files", &manifest]);
    let files = listed["files"].as_array().unwrap();
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/", "/d", "/d/large", "/small"]);
    assert_eq!(dump.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), paths);
    let field = |path: usize, name: &str| files[path][name].clone();
    assert_eq!((field(1, "type"), field(1, "mode")), (Value::from("directory"), Value::from("0751")));
    assert_eq!((field(2, "type"), field(2, "size")), (Value::from("file"), Value::from(10_000)));
    assert!(dump.contains(field(2, "object").as_str().unwrap()), "{dump}");
    assert_eq!((field(3, "size"), field(3, "object")), (Value::from(5), Value::Null));
}

#[test]
fn after_the_last_unmount_the_state_can_be_removed() {
    let (machine, layout) = node();
    let (first, second) = (machine.path().join("first"), machine.path().join("second"));
    let base = machine.state().join("mounts");
    for target in [&first, &second] {
        std::fs::create_dir(target).unwrap();
        machine.run(&["mount", &layout.reference("latest"), target.to_str().unwrap()]);
    }
    assert_eq!(std::fs::read(first.join("small")).unwrap(), b"small");
    machine.run(&["unmount", first.to_str().unwrap()]);
    assert!(mounts_below(&machine.state()).contains(&base), "the second mount needs it");
    assert_eq!(std::fs::read(second.join("small")).unwrap(), b"small");
    machine.run(&["unmount", second.to_str().unwrap()]);
    machine.run(&["probe"]);
    assert!(mounts_below(&machine.state()).is_empty());
    std::fs::remove_dir_all(machine.state()).unwrap();
}

#[tokio::test]
async fn a_command_leaves_the_directory_of_mounts_to_a_running_plugin() {
    let (_, layout) = node();
    let machine = Machine::new(&[&format!("--layout-dir={}", layout.path().display())]);
    let plugin = machine.start().await;
    machine.run(&["probe"]);
    plugin.node.clone().node_publish_volume(machine.publish("a", &layout.reference("latest"))).await.unwrap();
    assert_eq!(std::fs::read(machine.target("a").join("small")).unwrap(), b"small");
    machine.run(&["probe"]);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
}
