//! What `mount` is told.

use std::path::PathBuf;

use clap::Args;

use super::{ChoiceArgs, Level, Policy};
use crate::integrity::Integrity;
use crate::node::mount::ImageFileName;

/// What to mount, where, and how.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// The image, as for `pull`; or `composefs:FILE@DIGEST`, an image file of the composefs project's tools, whose files are
    /// in the directories of --object-source.
    pub image: String,
    /// The directory to mount on; it must exist.
    pub target: PathBuf,
    /// A sub-directory of the image to mount instead of its root.
    #[arg(long)]
    pub path: Option<PathBuf>,
    /// Refuse to execute programs from the mount.
    #[arg(long)]
    pub noexec: bool,
    /// The lowest accepted integrity level, as for the node plugin's --integrity. `fetch` by default, of an image file
    /// `read`.
    #[arg(long, value_enum)]
    pub verify: Option<Level>,
    /// Only for an image file: do not let the kernel verify image and files at every read, as on a filesystem without
    /// fs-verity. The image's digest is computed once instead, with `--verify mount` also those of its files.
    #[arg(long)]
    pub noverity: bool,
    /// The platform, as for `pull`.
    #[arg(long)]
    pub platform: Option<String>,
    /// What of it.
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// When to ask the registry.
    #[arg(long, value_enum, default_value_t = Policy::IfNotPresent)]
    pub pull_policy: Policy,
}

impl MountArgs {
    /// Whether an image file is meant, and no image of a registry or layout.
    pub fn is_of_file(&self) -> bool {
        ImageFileName::is_meant_by(&self.image)
    }

    /// The lowest accepted integrity level of an image that is pulled.
    ///
    /// # Errors
    /// What does not go together.
    pub fn least(&self) -> anyhow::Result<Integrity> {
        anyhow::ensure!(
            !self.noverity,
            "--noverity is for image files (composefs:FILE@DIGEST); leave it out"
        );
        Ok(self.verify.unwrap_or(Level::Fetch).into())
    }

    /// The level at which an image file is mounted.
    ///
    /// # Errors
    /// What does not go together.
    pub fn level_of_file(&self) -> anyhow::Result<Integrity> {
        let is_of_pulls =
            self.platform.is_some() || !self.choice.include.is_empty() || !self.choice.exclude.is_empty();
        anyhow::ensure!(
            !is_of_pulls,
            "--platform, --include and --exclude are for images that are pulled; an image file is mounted as it is"
        );
        match (self.noverity, self.verify) {
            (false, None | Some(Level::Read)) => Ok(Integrity::Read),
            (true, None | Some(Level::Fetch)) => Ok(Integrity::Fetch),
            (true, Some(Level::Mount)) => Ok(Integrity::Mount),
            (true, Some(Level::Read)) => {
                anyhow::bail!("--noverity and --verify read contradict each other; leave one out")
            }
            (false, Some(Level::Fetch | Level::Mount)) => anyhow::bail!(
                "an image file is verified at every read; for --verify fetch or mount, say --noverity, too"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn level(more: &[&str]) -> Result<Integrity, String> {
        let words = ["composefs-csi", "mount", "composefs:/i@ab", "/t"].iter().chain(more);
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Mount(args) = cli.command else { unreachable!() };
        assert!(args.is_of_file());
        args.level_of_file().map_err(|error| error.to_string())
    }

    #[test]
    fn less_than_every_read_is_asked_for_in_so_many_words() {
        assert_eq!(level(&[]), Ok(Integrity::Read));
        assert_eq!(level(&["--verify", "read"]), Ok(Integrity::Read));
        assert_eq!(level(&["--noverity"]), Ok(Integrity::Fetch));
        assert_eq!(level(&["--noverity", "--verify", "mount"]), Ok(Integrity::Mount));
        for wrong in [&["--verify", "mount"][..], &["--noverity", "--verify", "read"], &["--include", "a"]] {
            assert!(level(wrong).is_err(), "{wrong:?}");
        }
    }
}
