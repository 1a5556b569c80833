//! `mount composefs:FILE@DIGEST`, and `unmount` of it: image files of the composefs project's tools, without a store.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::args::{Cli, MountArgs, Output};
use super::output;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::{ImageFileMount, ImageFileName, mount_image_file, unmount_image_file};

/// `mount composefs:FILE@DIGEST TARGET`.
pub fn mount(args: &MountArgs, cli: &Cli, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Mounted<'a> {
        target: &'a Path,
        file: &'a Path,
        composefs: VerityDigest,
        integrity: Integrity,
        milliseconds: f64,
    }
    let image: ImageFileName = args.image.parse()?;
    let wanted = ImageFileMount {
        image,
        objects: cli.transfer.object_sources.clone(),
        level: args.level_of_file()?,
        path: args.path.clone().unwrap_or_default(),
        noexec: args.noexec,
    };
    let started = Instant::now();
    tokio::task::block_in_place(|| mount_image_file(&wanted, &cli.state_dir, &args.target))?;
    let mounted = Mounted {
        target: &args.target,
        file: &wanted.image.path,
        composefs: wanted.image.digest,
        integrity: wanted.level,
        milliseconds: started.elapsed().as_secs_f64() * 1e3,
    };
    output::show(output, &mounted, |m| {
        let integrity = match m.integrity {
            Integrity::Read => "verified at every read (fs-verity)",
            Integrity::Mount => "image and files verified before the mount",
            Integrity::Fetch => "the image verified before the mount, its files not",
        };
        format!(
            "{} shows {}\n  {integrity}, mounted in {:.1} ms",
            m.target.display(),
            m.file.display(),
            m.milliseconds
        )
    })
}

/// What [`unmount`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// An image file, which is unmounted.
    Yes,
    /// None.
    IsNone,
}

/// `unmount TARGET`, if an image file is mounted there.
pub fn unmount(target: &Path, output: Output) -> anyhow::Result<Unmounted> {
    #[derive(Serialize)]
    struct Report<'a> {
        target: &'a Path,
        composefs: VerityDigest,
    }
    let Some(composefs) = tokio::task::block_in_place(|| unmount_image_file(target))? else {
        return Ok(Unmounted::IsNone);
    };
    output::show(output, &Report { target, composefs }, |r| format!("{} is unmounted", r.target.display()))?;
    Ok(Unmounted::Yes)
}
