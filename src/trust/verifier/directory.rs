//! The programs of a verifier directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::kind::Kind;

/// Programs beyond this number are refused: somebody has mounted the wrong directory.
const PROGRAMS_MAX: usize = 32;

/// A program, and what tells it from one that took its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pub path: PathBuf,
    identity: [i128; 4],
}

impl Program {
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Why a verifier directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// It, or something in it, cannot be read.
    #[error("the verifier directory cannot be used: {}: {source}; mount it there and make it readable", path.display())]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no program in it.
    #[error(
        "the verifier directory {} holds no program, and nobody can be asked; put one in, or start without \
         --verifier-dir", .0.display()
    )]
    Empty(PathBuf),
    /// It holds something that is not a program.
    #[error("{} in the verifier directory is not an executable file; make it one (chmod +x), or remove it", .0.display())]
    NotExecutable(PathBuf),
    /// It holds too much.
    #[error("the verifier directory {} holds more than {PROGRAMS_MAX} entries; keep verifiers only", .0.display())]
    TooMany(PathBuf),
}

impl VerifierError {
    /// What cannot be asked does not consent.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}

/// The programs in `directory`, in the order of their names.
///
/// Names that begin with a dot are left out: Kubernetes keeps the versions of a mounted ConfigMap in such.
pub(super) fn programs(directory: &Path) -> Result<Vec<Program>, VerifierError> {
    let unreadable = |path: &Path, source| VerifierError::Unreadable { path: path.to_owned(), source };
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut programs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let found = std::fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
        if !found.is_file() || found.mode() & 0o111 == 0 {
            return Err(VerifierError::NotExecutable(path));
        }
        if programs.len() == PROGRAMS_MAX {
            return Err(VerifierError::TooMany(directory.to_owned()));
        }
        let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
        let identity = [found.dev().into(), found.ino().into(), found.size().into(), changed];
        programs.push(Program { path, identity });
    }
    if programs.is_empty() {
        return Err(VerifierError::Empty(directory.to_owned()));
    }
    programs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(programs)
}
