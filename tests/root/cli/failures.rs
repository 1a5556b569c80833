//! Wrong input: one message, one exit code, and the same for programs.

use serde_json::Value;

use super::{node, on_a_terminal, pulled, run};

/// Commands with wrong input, what they answer, and the kind of failure in JSON. `{layout}` is the directory of the
/// layout, `{state}` that of the state.
const WRONG: [(&str, &str, Option<&str>); 16] = [
    (
        "pull oci:/nowhere",
        "oci:/nowhere: /nowhere is not an OCI image layout: there is no file oci-layout; write one with: skopeo copy \
         SOURCE oci:DIR:TAG",
        Some("invalid"),
    ),
    (
        "policy check oci:/nowhere",
        "/nowhere is not an OCI image layout: there is no file oci-layout; write one with: skopeo copy SOURCE \
         oci:DIR:TAG",
        Some("invalid"),
    ),
    (
        "pull localhost:1/x:1",
        "localhost:1/x:1: connection to localhost:1 for localhost:1/x:1 failed: error sending request: client error \
         (Connect): tcp connect error: Connection refused (os error 111); check name, network and proxy of this node",
        Some("transient"),
    ),
    ("pull python", "\"python\" does not name its registry; write docker.io/library/python", Some("invalid")),
    (
        "pull --platform pdp11 oci:{layout}:latest",
        "\"pdp11\" is not a platform; write os/arch or os/arch/variant, for example linux/arm64",
        Some("invalid"),
    ),
    (
        "inspect r.example/x:1",
        "image r.example/x:1 is not on this node and pullPolicy is Never; pull it first or change the policy",
        Some("not_found"),
    ),
    (
        "inspect sha256:0123456789ab",
        "no image in the store has the digest sha256:0123456789ab; `composefs-csi ls` lists them",
        Some("not_found"),
    ),
    (
        "inspect 0123456789ab --platform linux/amd64",
        "--platform selects from what a reference names; a digest has one platform already",
        None,
    ),
    (
        "pin 0123456789ab",
        "no image in the store has the digest sha256:0123456789ab; `composefs-csi ls` lists them",
        Some("not_found"),
    ),
    (
        "unpin @sha256:0123456789ab",
        "no image in the store has the digest sha256:0123456789ab; `composefs-csi ls` lists them",
        Some("not_found"),
    ),
    (
        "verify 0123456789ab",
        "no image in the store has the digest sha256:0123456789ab; `composefs-csi ls` lists them",
        Some("not_found"),
    ),
    ("unmount /tmp", "no image is mounted on /tmp; `findmnt -t overlay` lists them", None),
    (
        "mount oci:{layout}:latest /nowhere",
        "target /nowhere does not exist; it must be an existing directory, not a symbolic link",
        Some("invalid"),
    ),
    (
        "ls --auth-file /nowhere",
        "auth file /nowhere: cannot be read: No such file or directory (os error 2); correct the registry settings of this \
         node",
        Some("invalid"),
    ),
    (
        "ls --node-key {state}/store/key",
        "--node-key {state}/store/key is inside the store, whose records it protects; choose another place",
        None,
    ),
    (
        "node --node-id n --gc-low 99",
        "--gc-low 99 and --gc-high 85 are inconsistent; both are percentages, and the low one must not be above the \
         high one",
        None,
    ),
];

#[test]
fn every_failure_is_said_once() {
    let (machine, layout) = node();
    pulled(&machine, &layout);
    let filled = |text: &str| {
        let text = text.replace("{layout}", &layout.path().display().to_string());
        text.replace("{state}", &machine.state().display().to_string())
    };
    for (line, message, kind) in WRONG {
        let (line, message) = (filled(line), filled(message));
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(&machine, &arguments);
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("composefs-csi: {message}\n"), "{line}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{line}");
        let output = run(&machine, &[&arguments[..], &["--output", "json"]].concat());
        let failure: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(failure, serde_json::json!({"error": message, "kind": kind}), "{line}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{line}");
    }
}

#[test]
fn a_wrong_command_line_is_a_failure_of_its_own() {
    let (machine, _) = node();
    for (line, message) in [
        ("pul", "unrecognized subcommand 'pul'"),
        ("ls --nonsense", "unexpected argument '--nonsense' found"),
        ("inspect", "the following required arguments were not provided:\n  <IMAGE>"),
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(&machine, &arguments);
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.starts_with(&format!("error: {message}\n")), "{line}: {words}");
        assert_eq!(output.status.code(), Some(2), "{line}");
        let output = run(&machine, &[&arguments[..], &["--output=json"]].concat());
        let failure: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(failure, serde_json::json!({"error": message, "kind": "usage"}), "{line}");
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}

#[test]
fn a_terminal_breaks_messages_between_words() {
    let (machine, _) = node();
    let lines = on_a_terminal(&machine, &["pull", "localhost:1/x:1"]);
    assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    assert!(lines[1..].iter().all(|line| line.starts_with("  ")), "{lines:#?}");
    let name = format!("registry.example.com/{}:1", "long/".repeat(20) + "x");
    let lines = on_a_terminal(&machine, &["inspect", &name]);
    assert!(lines.iter().any(|line| line.contains(&name)), "a name stays whole: {lines:#?}");
}
