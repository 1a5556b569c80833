//! Real programs: scripts that allow, refuse, hang, babble, fork, and are none at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Question, Verifiers};

/// A script cannot be executed while somebody has it open for writing, and a process that another test is just
/// starting has everything open that this one has. So these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct Directory {
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Directory {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { directory: tempfile::tempdir().unwrap(), _turn: turn }
    }

    fn bin(&self) -> PathBuf {
        let bin = self.directory.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        bin
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn note(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn verifiers(&self) -> Verifiers {
        Verifiers::new(self.bin(), Duration::from_secs(20))
    }
}

fn question() -> Question {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    Question {
        name: "r.io/a/b:1".to_owned(),
        digest: digest.to_owned(),
        descriptor: format!(
            r#"{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{digest}","size":7}}"#
        ),
    }
}

/// What the programs say, in the order of their names.
fn answers(verifiers: &Verifiers) -> Vec<Result<String, String>> {
    verifiers.ask(&question()).unwrap().into_iter().map(|verdict| verdict.result).collect()
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn programs_get_what_containerd_gives_them() {
    let directory = Directory::new();
    let seen = directory.note("seen");
    directory.script(
        "a",
        &format!(
            "{{ printf '%s\\n' \"$@\"; cat; echo; env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; }} >{}; echo fine",
            seen.display()
        ),
    );
    assert_eq!(answers(&directory.verifiers()), [Ok("fine".to_owned())]);
    let question = question();
    let seen = fs::read_to_string(seen).unwrap();
    let expected = format!(
        "-name\n{}\n-digest\n{}\n-stdin-media-type\napplication/vnd.oci.descriptor.v1+json\n{}\n",
        question.name, question.digest, question.descriptor
    );
    let rest = seen.strip_prefix(&expected).unwrap_or_else(|| panic!("{seen}"));
    // PWD and the like are the shell's own.
    let names: Vec<_> =
        rest.split_whitespace().filter(|n| !["PWD", "OLDPWD", "SHLVL", "_"].contains(n)).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "/"], "nothing of our own environment");
}

#[test]
fn all_must_allow_and_each_says_why_not() {
    let directory = Directory::new();
    directory.script("a-allows", "cat >/dev/null; echo; echo '  signed by the team  '; echo more");
    directory.script("b-refuses", "echo no such signature; echo details >&2; exit 3");
    directory.script("c-silent", "exit 1");
    directory.script("d-closes-stdin", "exec <&-; exit 0");
    directory.script("e-dies", "kill -SEGV $$");
    directory.script("f-forges", "printf 'line\\033[2Jone\\n'; exit 1");
    let answers = answers(&directory.verifiers());
    assert_eq!(answers[0], Ok("signed by the team".to_owned()));
    assert_eq!(answers[1], Err("refused: no such signature".to_owned()));
    assert_eq!(answers[2], Err("refused with exit code 1 and gave no reason".to_owned()));
    assert_eq!(answers[3], Ok(String::new()));
    assert_eq!(answers[4], Err("was ended by signal 11".to_owned()));
    assert_eq!(answers[5], Err("refused: line [2Jone".to_owned()));
}

#[test]
fn a_program_that_hangs_is_ended_with_its_children() {
    let directory = Directory::new();
    let child = directory.note("child");
    // Deaf to everything but SIGKILL, with a child that holds the pipes.
    directory.script(
        "a",
        &format!(
            "trap '' TERM HUP; sleep 1000 & echo $! >{}; echo never mind; wait; sleep 1000",
            child.display()
        ),
    );
    directory.script("b", "echo fine");
    // As long as a busy machine takes to start the other program; without a limit it would be the thousand seconds.
    let verifiers = Verifiers::new(directory.bin(), Duration::from_millis(5500));
    let answers = answers(&verifiers);
    assert!(answers[0].as_ref().unwrap_err().contains("did not answer within 5.5 seconds"), "{answers:?}");
    assert_eq!(answers[1], Ok("fine".to_owned()));
    let child: u32 = fs::read_to_string(child).unwrap().trim().parse().unwrap();
    let gone = || {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !gone() {
        assert!(Instant::now() < deadline, "the child lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_child_that_stays_behind_holds_up_nothing() {
    let directory = Directory::new();
    directory.script("a", "sleep 1000 & echo fine");
    // An answer that waited for the child would come too late to be one.
    assert_eq!(answers(&directory.verifiers()), [Ok("fine".to_owned())]);
}

#[test]
fn output_without_end_is_dropped() {
    let directory = Directory::new();
    directory.script("a", "head -c 3000000 /dev/zero | tr '\\0' x; exit 1");
    directory.script("b", "yes >&2");
    let verifiers = Verifiers::new(directory.bin(), Duration::from_secs(10));
    let answers = answers(&verifiers);
    let reason = answers[0].as_ref().unwrap_err();
    assert!(reason.starts_with("refused: xxx") && reason.len() < 400, "{reason}");
    assert!(answers[1].as_ref().unwrap_err().contains("did not answer"), "{answers:?}");
}

#[test]
fn what_cannot_be_asked_does_not_consent() {
    let directory = Directory::new();
    let missing = Verifiers::new(directory.note("missing"), Duration::from_secs(1));
    let why = |verifiers: &Verifiers| verifiers.ask(&question()).unwrap_err().to_string();
    assert!(why(&missing).contains("missing: No such file"), "{}", why(&missing));
    let verifiers = directory.verifiers();
    assert!(why(&verifiers).contains("holds no program"), "{}", why(&verifiers));
    directory.script("good", "exit 0");
    // The versions of a mounted ConfigMap are no programs.
    fs::create_dir(directory.bin().join("..2026_1")).unwrap();
    assert_eq!(answers(&verifiers), [Ok(String::new())]);
    let notes = directory.bin().join("README");
    fs::write(&notes, "x").unwrap();
    assert!(
        why(&verifiers).contains("README") && why(&verifiers).contains("chmod +x"),
        "{}",
        why(&verifiers)
    );
    fs::remove_file(&notes).unwrap();
    std::os::unix::fs::symlink("nowhere", &notes).unwrap();
    assert!(why(&verifiers).contains("README: No such file"), "{}", why(&verifiers));
    fs::remove_file(&notes).unwrap();
    // An executable file that this system cannot run.
    let garbage = directory.script("garbage", "");
    fs::write(&garbage, [0x7f, b'E', b'L', b'F', 0, 0]).unwrap();
    let answers = answers(&verifiers);
    assert!(answers[0].as_ref().unwrap_err().contains("cannot be run"), "{answers:?}");
    for number in 0..32 {
        directory.script(&format!("p{number}"), "exit 0");
    }
    assert!(why(&verifiers).contains("more than 32"), "{}", why(&verifiers));
}

#[test]
fn pods_that_start_at_once_ask_once() {
    let directory = Directory::new();
    let asked = directory.note("asked");
    let body = |reason: &str| format!("echo x >>{}; sleep 0.3; echo {reason}", asked.display());
    directory.script("a", &body("one"));
    let verifiers = directory.verifiers();
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| assert_eq!(answers(&verifiers), [Ok("one".to_owned())]));
        }
    });
    assert_eq!(lines(&asked), 1);
    let other = Question { name: "r.io/other:1".to_owned(), ..question() };
    verifiers.ask(&other).unwrap();
    assert_eq!(lines(&asked), 2, "another name is another question");
    // Another program in the same place is asked itself.
    directory.script("a", &body("two"));
    assert_eq!(answers(&verifiers), [Ok("two".to_owned())]);
    assert_eq!(lines(&asked), 3);
}

#[test]
fn a_descriptor_that_does_not_fit_a_pipe_is_refused() {
    let directory = Directory::new();
    directory.script("a", "exit 0");
    let long = Question { descriptor: "x".repeat(5000), ..question() };
    let verdicts = directory.verifiers().ask(&long).unwrap();
    assert!(verdicts[0].result.as_ref().unwrap_err().contains("too long"), "{verdicts:?}");
}
