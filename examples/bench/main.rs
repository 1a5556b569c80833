//! Measures the driver beside its peers; `make bench` runs it and docs/benchmarks.md has the result.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(missing_docs, reason = "not a library")]

mod fixtures;
mod packages;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;

use anyhow::Result;

fn main() -> Result<()> {
    let cache = PathBuf::from(std::env::var("HOME")?).join(".cache/composefs-csi/bench");
    let fixtures = fixtures::Fixtures::prepare(&cache)?;
    println!("{fixtures:?}");
    Ok(())
}
