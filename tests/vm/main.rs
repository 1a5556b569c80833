//! fs-verity, tampering and SELinux, in virtual machines with Debian's kernels 6.12 and 7.x.
//!
//! Most machines' own filesystems have no fs-verity, so this very test binary, which has little else in it, goes into an
//! initramfs, beside a disk of ext4 with `-O verity`, and runs its ignored test `guest` there. What that found comes
//! back through a serial port, one JSON object per row; a row that is missing fails the test as one that went wrong
//! does.
//!
//! The machines boot with SELinux; the last rows load a small policy (`vm/selinux.cil`) and enforce it.
//!
//! No KVM is needed: QEMU emulates, in about half a minute for each kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod combined;
mod damage;
mod disk;
mod follow;
mod guest;
mod host;
mod initramfs;
mod machine;
mod mounts;
mod policy;
mod pulled;
mod reads;
mod records;
mod selinux;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the guest found out about one thing.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    name: String,
    passed: bool,
    detail: String,
}

/// Boots `kernel` (a set of scripts/debian-tools.sh), prints every row, and fails for any that is not there and good.
fn run(kernel: &str) {
    let started = std::time::Instant::now();
    let (rows, console) = machine::run(kernel);
    let found: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.name.as_str(), row)).collect();
    let mut failures = Vec::new();
    for (name, _) in guest::ROWS.iter().chain(selinux::ROWS) {
        let (verdict, detail) = match found.get(name) {
            Some(row) => (if row.passed { "ok" } else { "FAILED" }, row.detail.as_str()),
            None => ("MISSING", ""),
        };
        println!("{kernel}: {name}: {verdict} {detail}");
        if verdict != "ok" {
            failures.push(format!("{name}: {verdict} {detail}"));
        }
    }
    println!("{kernel}: {} rows in {:.1} s", rows.len(), started.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{kernel}:\n{}\nThe machine's console:\n{console}", failures.join("\n"));
}

#[test]
fn linux_6_12() {
    run("kernel-6.12");
}

#[test]
fn linux_7() {
    run("kernel-7");
}

#[test]
#[ignore = "runs inside the virtual machine that the other tests start"]
fn guest() {
    guest::run();
}

#[test]
#[ignore = "runs inside the virtual machine, with the label of a privileged container"]
fn privileged() {
    selinux::privileged();
}

#[test]
#[ignore = "runs inside the virtual machine, with a label that may not mount with every context"]
fn restricted() {
    selinux::restricted();
}
