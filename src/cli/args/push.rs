//! Arguments of `push`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RulesArg;

/// What is pushed, and how.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// The directory whose content is pushed. Its own mode and owner do not count: the root is 0755, of root.
    pub directory: PathBuf,
    /// Where to, as `registry/repository:tag`.
    pub reference: String,
    /// Push an artifact, each file a blob as it is, instead of an image: `modelpack` (CNCF ModelPack), or `files`, as
    /// `oras` pushes them.
    #[arg(long, value_enum, value_name = "KIND")]
    pub artifact: Option<ArtifactArg>,
    /// The type of an artifact of files.
    #[arg(
        long,
        value_name = "TYPE",
        requires = "artifact",
        default_value = "application/vnd.unknown.artifact.v1"
    )]
    pub artifact_type: String,
    /// How layers of an image are compressed.
    #[arg(long, value_enum, default_value_t = CompressionArg::ZstdChunked)]
    pub compression: CompressionArg,
    /// The platform that an image is for, as `os/arch[/variant]`; the machine's, without variant, by default.
    #[arg(long)]
    pub platform: Option<String>,
    /// Keep times of modification, but none later than SOURCE_DATE_EPOCH. Without this all times are that, or 1970.
    #[arg(long)]
    pub keep_times: bool,
    /// Seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH", value_name = "SECONDS", allow_hyphen_values = true)]
    pub source_date_epoch: Option<i64>,
    /// Keep the numbers of owners and groups. Without this everything belongs to root.
    #[arg(long)]
    pub keep_owners: bool,
    /// Push the files that symbolic links lead to in their place, as a directory of Hugging Face's cache needs it.
    #[arg(long)]
    pub follow_links: bool,
    /// An annotation of the manifest, as `name=value`; may be repeated.
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    pub annotations: Vec<String>,
    /// Another repository of the same registry, whose blobs need not be sent.
    #[arg(long, value_name = "REPOSITORY")]
    pub mount_from: Option<String>,
    /// Seal it at once: write its composefs digest into its manifest, so that a signature covers it.
    #[arg(long)]
    pub seal: bool,
    /// Sign it at once, as `cosign sign` does, with this private key: PEM, ECDSA on P-256. If it is encrypted, its password is
    /// in the environment, in COSIGN_PASSWORD. The signature is there before the tag, and in no transparency log.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The rules to seal by.
    #[arg(long, value_enum, requires = "seal", default_value_t = RulesArg::Faithful)]
    pub rules: RulesArg,
}

/// Which kind of artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ArtifactArg {
    /// A model by CNCF's ModelPack: names, modes and times are kept.
    Modelpack,
    /// Files with their names and nothing else.
    Files,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Nodes that have another version fetch only files, and pieces of files, that they lack.
    ZstdChunked,
    /// One stream.
    Zstd,
    /// For runtimes that know nothing newer.
    Gzip,
}
