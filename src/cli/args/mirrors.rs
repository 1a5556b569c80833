//! Where the files about mirrors are.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::oci::mirrors::{AccessProof, MirrorSettings};

/// Settings for mirrors, and for programs that have credentials.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registries")]
pub struct MirrorArgs {
    /// A directory with a directory per registry that holds a hosts.toml, as containerd's `config_path`; may be repeated, or
    /// hold several with commas between them. Files are read again when they change; one that cannot be used refuses the
    /// pulls that it concerns.
    #[arg(
        long = "registry-hosts-dir",
        global = true,
        env = "COMPOSEFS_CSI_REGISTRY_HOSTS_DIR",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub registry_hosts_dirs: Vec<PathBuf>,
    /// A containers-registries.conf(5) with the files in the directory of that name and `.d`, read in the same way.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_REGISTRIES_CONF", value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// Who says that a pod may read an image that a mirror has: its registry, or any place that has it. `mirror` gives every
    /// pod all that the node's mirrors give to the node.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_MIRROR_PROOF", value_enum, default_value_t = Proof::Origin)]
    pub mirror_proof: Proof,
    /// A directory with the helper programs (docker-credential-NAME) that the docker config of --auth-file names. No other
    /// program is run for it.
    #[arg(long, global = true, env = "COMPOSEFS_CSI_CREDENTIAL_HELPER_DIR", value_name = "DIR")]
    pub credential_helper_dir: Option<PathBuf>,
}

/// Who says that a pod may read an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proof {
    /// The registry that the image names, by the pod's own credentials.
    Origin,
    /// Any place that has it.
    Mirror,
}

impl MirrorArgs {
    /// The same as settings.
    pub fn settings(&self) -> MirrorSettings {
        MirrorSettings {
            hosts_dirs: self.registry_hosts_dirs.clone(),
            registries_conf: self.registries_conf.clone(),
            proof: match self.mirror_proof {
                Proof::Origin => AccessProof::Origin,
                Proof::Mirror => AccessProof::Mirror,
            },
        }
    }
}
