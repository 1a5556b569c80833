//! Files for images: Debian packages, fetched by apt and unpacked without installing them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::support::layout::architecture;

/// Layers as a builder would make them.
pub const LAYERS: [(&str, &[&str]); 4] = [
    (
        "system",
        &[
            "base-files",
            "bash",
            "coreutils",
            "git",
            "libc-bin",
            "libc6",
            "libicu72",
            "libpython3.11-minimal",
            "libpython3.11-stdlib",
            "libssl3",
            "locales",
            "openssl",
            "perl",
            "perl-base",
            "perl-modules-5.36",
            "python3.11",
            "tzdata",
            "vim-runtime",
        ],
    ),
    ("toolchain", &["golang-1.19-go", "golang-1.19-src", "libllvm14", KERNEL_HEADERS]),
    (
        "application",
        &[
            "libboost1.74-dev",
            "node-typescript",
            "python3-django",
            "python3-matplotlib",
            "python3-numpy",
            "python3-pandas",
            "python3-scipy",
            "python3-sympy",
        ],
    ),
    (
        "libraries",
        &[
            "libllvm14",
            "node-typescript",
            "python3-django",
            "python3-matplotlib",
            "python3-numpy",
            "python3-pandas",
            "python3-scipy",
        ],
    ),
];

/// Stands for the package of the current kernel's common headers, whose name has a version.
const KERNEL_HEADERS: &str = "linux-headers-common";

/// Unpacks the packages of these layers below `cache`; returns the layers' directories in order.
pub fn unpack(cache: &Path, layers: &[&str]) -> Result<Vec<PathBuf>> {
    layers
        .iter()
        .filter_map(|wanted| LAYERS.iter().find(|(layer, _)| layer == wanted))
        .map(|(layer, packages)| {
            let directory = cache.join("layers").join(layer);
            if !directory.exists() {
                eprintln!("bench: unpacking {} packages of layer {layer}", packages.len());
                unpack_layer(cache, &directory, packages)
                    .with_context(|| format!("layer {layer}; the packages are those of Debian 12"))?;
            }
            Ok(directory)
        })
        .collect()
}

fn unpack_layer(cache: &Path, directory: &Path, packages: &[&str]) -> Result<()> {
    let (debs, building) = (cache.join("debs"), directory.with_extension("new"));
    fs::create_dir_all(&debs)?;
    if building.exists() {
        fs::remove_dir_all(&building)?;
    }
    fs::create_dir_all(&building)?;
    for package in packages {
        let package = if *package == KERNEL_HEADERS { kernel_headers()? } else { (*package).to_owned() };
        let deb = match find(&debs, &package)? {
            Some(deb) => deb,
            None => {
                let status = Command::new("apt-get")
                    .args(["-qq", "download", &package])
                    .current_dir(&debs)
                    .status()?;
                ensure!(status.success(), "apt-get cannot download {package}; run: apt-get update");
                find(&debs, &package)?.with_context(|| format!("apt-get left no file for {package}"))?
            }
        };
        let status = Command::new("dpkg").arg("-x").args([&deb, &building]).status()?;
        ensure!(status.success(), "dpkg cannot unpack {}", deb.display());
    }
    fs::rename(&building, directory)?;
    Ok(())
}

fn find(debs: &Path, package: &str) -> Result<Option<PathBuf>> {
    let prefix = format!("{package}_");
    for entry in fs::read_dir(debs)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// The metapackage names the current one.
fn kernel_headers() -> Result<String> {
    let meta = format!("linux-headers-{}", architecture());
    let output = Command::new("apt-cache").args(["depends", &meta]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ")?.strip_suffix(architecture()))
        .map(|name| format!("{name}common"))
        .with_context(|| format!("{meta} names no package; run: apt-get update"))
}
