//! `completions`: a script that completes commands and options in a shell.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell as Target;

use super::args::{Cli, Shell};
use super::output;

/// `completions SHELL`.
pub(super) fn print(shell: Shell) -> anyhow::Result<()> {
    let target = match shell {
        Shell::Bash => Target::Bash,
        Shell::Zsh => Target::Zsh,
        Shell::Fish => Target::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(target, &mut Cli::command(), "composefs-csi", &mut script);
    std::io::stdout().lock().write_all(&script).or_else(output::unless_closed)
}
