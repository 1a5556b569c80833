//! Demonstrates the driver: `make demo`.
//!
//! It makes two versions of an image from this machine's own files, starts the real node plugin, and acts as kubelet
//! for three pods. Everything is below one temporary directory, which is removed at the end, also after Ctrl-C.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(missing_docs, reason = "not a library")]

mod images;
mod interrupt;
mod screen;
mod story;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

fn main() -> ExitCode {
    let started = Instant::now();
    match show() {
        Ok(()) => {
            println!("\nThat took {}.", screen::time(started.elapsed()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "mounting needs root; run: make demo");
    let program = program()?;
    interrupt::watch()?;
    // Not /tmp, which may be in memory: composefs images are mounted from a disk.
    let base = tempfile::Builder::new().prefix("composefs-csi-demo-").tempdir_in("/var/tmp")?;
    let told = story::tell(&program, base.path());
    // Also after a failure: first the mounts, then the files.
    let swept = sweep(base);
    told?;
    swept
}

/// The driver's program is in the directory above the examples.
fn program() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let program = here.ancestors().nth(2).map(|target| target.join("composefs-csi"));
    program
        .filter(|program| program.exists())
        .context("the program composefs-csi is not built; run: make demo")
}

fn sweep(base: tempfile::TempDir) -> Result<()> {
    let path = base.path().to_owned();
    support::mounts::unmount_below(&path)?;
    base.close().with_context(|| format!("cannot remove {}", path.display()))?;
    left_nothing(&path)
}

fn left_nothing(base: &Path) -> Result<()> {
    let mounts = support::mounts::below(base)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    ensure!(!base.exists(), "{} is left", base.display());
    Ok(())
}
