//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod mirrors;
mod mount;
mod push;
mod run_modes;
mod store;

pub use mirrors::MirrorArgs;
pub use mount::MountArgs;
pub use push::{ArtifactArg, CompressionArg, PushArgs};
pub use run_modes::{ControllerArgs, NodeArgs, WatermarkArgs};
pub use store::StoreCommand;

use super::access::AccessArgs;
use super::limits::LimitArgs;
use super::transfer::TransferArgs;
use super::trust::TrustArgs;
use crate::node::mount::SelinuxContext;
use crate::oci::choice::{Choice, ChoiceError};

/// Layers fetched at the same time by a command, and by a node plugin without --parallel-layers.
pub(super) const PARALLEL_LAYERS: usize = 4;
/// The variable that says how results are printed.
pub(super) const OUTPUT: &str = "COMPOSEFS_CSI_OUTPUT";
/// The heading in the help for options that all commands have. A command's own come first.
const EVERYWHERE: &str = "Options of all commands";

/// Image-backed, read-only volumes for Kubernetes, verified file by file.
#[derive(Debug, Parser)]
#[command(
    name = "composefs-csi",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Where images, records and private mounts are kept.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "COMPOSEFS_CSI_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/composefs-csi"
    )]
    pub state_dir: PathBuf,
    /// The file of the node key, which authenticates the store's records: 32 bytes, created at the first start, never
    /// inside the store. By default `node.key` in the state directory.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "COMPOSEFS_CSI_NODE_KEY", value_name = "FILE")]
    pub node_key: Option<PathBuf>,
    /// Settings for registries.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Settings for which images may be mounted.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Who may use the images in the store.
    #[command(flatten)]
    pub access: AccessArgs,
    /// Limits on images.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How layers are fetched.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// The SELinux label of mounts, as `user:role:type:level`, on nodes where SELinux is on. `auto` selects one that
    /// all containers may read and none may write; `none` leaves it to the node's policy.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "COMPOSEFS_CSI_SELINUX_CONTEXT",
        value_name = "LABEL",
        default_value_t = SelinuxContext::Auto
    )]
    pub selinux_context: SelinuxContext,
    /// How results are printed.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = OUTPUT,
        value_enum,
        default_value_t = Output::Text
    )]
    pub output: Output,
    /// Log level or filter, such as `info` or `composefs_csi=debug`.
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "COMPOSEFS_CSI_LOG", value_name = "FILTER")]
    pub log_level: Option<String>,
    /// How log lines are written.
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "COMPOSEFS_CSI_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Text
    )]
    pub log_format: LogFormat,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables and lines for people.
    Text,
    /// One JSON document on standard output. A failure is a line of JSON on standard error: `error`, and `kind` where
    /// the failure has one.
    Json,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings for registries.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// A docker config.json with credentials. The run modes read it, and the two files below, again when it changes.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_AUTH_FILE", value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// A registry (`host` or `host:port`) to contact over plain http; may be repeated, or hold several with commas
    /// between them.
    #[arg(
        long = "insecure-registry",
        global = true,
        env = "COMPOSEFS_CSI_INSECURE_REGISTRY",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub insecure_registries: Vec<String>,
    /// A file that lists more such registries, one on a line.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_INSECURE_REGISTRIES_FILE", value_name = "FILE")]
    pub insecure_registries_file: Option<PathBuf>,
    /// A PEM file with certificate authorities to trust in addition to the system's; may be repeated, or hold several
    /// with commas between them.
    #[arg(
        long = "registry-ca",
        global = true,
        env = "COMPOSEFS_CSI_REGISTRY_CA",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub registry_cas: Vec<PathBuf>,
    /// Settings for mirrors.
    #[command(flatten)]
    pub mirrors: MirrorArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the CSI node plugin.
    Node(NodeArgs),
    /// Run the CSI controller.
    Controller(ControllerArgs),
    /// Fetch an image into the store.
    Pull {
        /// The image, as `registry/repository[:tag][@digest]` or `oci:DIR[:TAG]`.
        image: String,
        /// The platform to select from an index, as `os/arch[/variant]`; the machine's by default.
        #[arg(long)]
        platform: Option<String>,
        /// What of it.
        #[command(flatten)]
        choice: ChoiceArgs,
        /// When to ask the registry.
        #[arg(long, value_enum, default_value_t = Policy::Always)]
        pull_policy: Policy,
    },
    /// Mount an image read-only on a directory, fetching it if necessary, or an image file of the composefs project's tools.
    Mount(MountArgs),
    /// Remove a mount made by `mount`.
    Unmount {
        /// The directory it is mounted on.
        target: PathBuf,
    },
    /// Show details of an image in the store, or what an image or artifact in a registry holds.
    Inspect {
        /// The image, by reference or by the digest that `ls` shows; its beginning is enough.
        image: String,
        /// Print every path in the composefs dump format instead.
        #[arg(long)]
        files: bool,
        /// Ask the registry instead, and list what would be fetched: layers, and the files of an artifact. Nothing but
        /// manifest and config is, and what is published for the image to start lazily.
        #[arg(long, conflicts_with = "files")]
        remote: bool,
        /// The platform, as for `pull`. A digest needs none.
        #[arg(long)]
        platform: Option<String>,
        /// What of it, as for `pull`.
        #[command(flatten)]
        choice: ChoiceArgs,
    },
    /// List the images in the store with their exclusive and shared sizes.
    Ls,
    /// Print the composefs digest of an image, fetching it if necessary.
    Digest {
        /// The image, as for `pull`.
        image: String,
        /// Build by these rules instead, for comparison with a sealed image or with other composefs tools.
        #[arg(long, value_enum)]
        rules: Option<RulesArg>,
        /// The platform, as for `pull`.
        #[arg(long)]
        platform: Option<String>,
    },
    /// Write an image's composefs digest into its manifest, so that a signature covers it. The image gets a new
    /// digest.
    Seal {
        /// The image: `oci:DIR[:TAG]` is changed in place, `registry/repository:tag` is pushed under the same tag.
        /// In an index the images of all platforms are sealed.
        image: String,
        /// The rules to build the image by. Other tools know only the canonical ones, which need a /usr.
        #[arg(long, value_enum, default_value_t = RulesArg::Canonical)]
        rules: RulesArg,
        /// Give the sealed image this tag, and leave the original tag unchanged.
        #[arg(long)]
        tag: Option<String>,
        /// Replace a different digest that is already in the manifest.
        #[arg(long)]
        force: bool,
        /// Publish beside each manifest what nodes need to start the image before its content is there: the composefs image,
        /// and a map of where each file is. An image that is sealed already stays as it is.
        #[arg(long)]
        lazy: bool,
        /// What is read first when the image starts, in this order: a file of lines, each a path in the image that begins
        /// with `/`, or an object's digest. Without it the list that was published before stays.
        #[arg(long, value_name = "FILE", requires = "lazy")]
        first: Option<PathBuf>,
    },
    /// Push a directory as an image or an artifact. The same files give the same digest, and what the registry has is not
    /// sent again.
    Push(PushArgs),
    /// Keep an image from being removed.
    Pin {
        /// The image, as for `inspect`.
        image: String,
        /// Why, for those who see it in `pins`.
        #[arg(long)]
        reason: Option<String>,
        /// How long, such as `12h` or `30d`; until `unpin` by default.
        #[arg(long = "for", value_name = "TIME", value_parser = store::time)]
        time: Option<Duration>,
    },
    /// Let an image be removed again.
    Unpin {
        /// The image, as for `inspect`.
        image: String,
    },
    /// List the pins: which images are kept, since when, how long, and why.
    Pins,
    /// What the store holds, and why.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Remove the images that no volume, mount or pin needs, with all data that only they use.
    Prune {
        /// Remove only down to the low-water mark, least recently used first, and only if the
        /// filesystem has passed the high-water mark.
        #[arg(long)]
        watermark: bool,
        /// When images go to make room.
        #[command(flatten)]
        watermarks: WatermarkArgs,
        /// Show what would be removed, what stays and why, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Read every object of the images in the store and list damaged ones. Fails if there are any.
    Verify {
        /// Only this image, as for `inspect`.
        image: Option<String>,
        /// Remove damaged objects and the records of images that use them, so that the next pull restores them.
        #[arg(long)]
        repair: bool,
        /// First enable fs-verity on objects that were stored before the filesystem had it. The node plugin does that by
        /// itself.
        #[arg(long)]
        enable_verity: bool,
    },
    /// Show the running node plugin on one screen: whether it is ready, room in its store, what is busy, and its pulls.
    Status {
        /// Show it again and again: bars on a terminal, else lines, or a JSON document on each line.
        #[arg(long)]
        watch: bool,
    },
    /// List what the running node plugin is pulling: how far, how fast, until when, and for which pods.
    Pulls {
        /// What to do instead.
        #[command(subcommand)]
        command: Option<PullsCommand>,
    },
    /// Ask now for the tags that volumes of the running node plugin follow (`follow: "true"`), and say what each volume shows.
    Refresh {
        /// Only of this volume, or of the volumes of this image, as the list shows them.
        what: Option<String>,
    },
    /// Query the signature policy.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Test what this kernel and the store's filesystem can do.
    Probe,
    /// Print a script that completes commands and options in a shell.
    Completions {
        /// The shell: `source <(composefs-csi completions bash)`.
        shell: Shell,
    },
}

/// What of an image or artifact is wanted.
#[derive(Debug, Clone, Args)]
pub struct ChoiceArgs {
    /// Only the files whose path in the image this pattern matches, as `models/*.gguf` or `**/*.json`; what lies below a
    /// directory that it matches, too. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Not the files that this pattern matches, or that lie below a directory that it matches. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
}

impl ChoiceArgs {
    /// Parses the patterns.
    pub fn parse(&self) -> Result<Choice, ChoiceError> {
        Choice::new(self.include.clone(), self.exclude.clone())
    }
}

/// The shells that completions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// What can be done to pulls.
#[derive(Debug, Subcommand)]
pub enum PullsCommand {
    /// End a pull. Its callers get an error; whoever asks again starts it anew, with the layers that are complete.
    Cancel {
        /// The image, by the digest or the reference that `pulls` shows.
        image: String,
    },
}

/// Queries of the signature policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Explain, requirement by requirement, whether an image would be mounted; fails if it would not.
    Check {
        /// The image, as for `pull`. Only its manifest and signatures are fetched.
        image: String,
        /// The Kubernetes namespace of the pod that would mount it.
        #[arg(long)]
        namespace: Option<String>,
        /// The platform, as for `pull`.
        #[arg(long)]
        platform: Option<String>,
    },
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Policy {
    /// Resolve the reference every time.
    Always,
    /// Ask only if the image is not in the store.
    IfNotPresent,
    /// Never ask.
    Never,
}

/// How thoroughly the data that a pod reads is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Digests are checked when the image is pulled.
    Fetch,
    /// Also checked once more before the first mount of an image.
    Mount,
    /// Checked by the kernel at every read.
    Read,
}

/// The rules to build a file tree by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RulesArg {
    /// As in the layers, but without device nodes and named pipes.
    Faithful,
    /// The same with device nodes and named pipes.
    Verbatim,
    /// As `faithful`, without set-user-ID and set-group-ID bits and file capabilities: what this driver mounts.
    Unprivileged,
    /// The same without permissions to execute files: what this driver mounts with `noexec`.
    Noexec,
    /// The composefs project's rules for OCI images; keeps no extended attributes but file capabilities.
    Canonical,
    /// The same with `user.*` attributes kept.
    CanonicalUserXattrs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// The chart gives these settings to the container, not to a command line: so `kubectl exec` runs a command with the
    /// settings of the plugin. A setting without a variable would be unknown there.
    #[test]
    fn every_global_setting_has_a_variable_of_its_name() {
        let command = Cli::command();
        let settings = command.get_arguments().filter(|argument| argument.is_global_set());
        let mut count = 0;
        for setting in settings {
            let flag = setting.get_long().expect("settings are long options");
            let expected = match flag {
                // Older than the rule.
                "log-level" => "COMPOSEFS_CSI_LOG".to_owned(),
                flag => format!("COMPOSEFS_CSI_{}", flag.to_uppercase().replace('-', "_")),
            };
            let variable = setting.get_env().and_then(std::ffi::OsStr::to_str);
            assert_eq!(variable, Some(expected.as_str()), "--{flag}");
            count += 1;
        }
        assert!(count >= 30, "{count}");
    }
}
