//! The programs of a verifier directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The most programs in a directory. More of them suggest that the wrong directory is mounted.
const PROGRAMS_MAX: usize = 32;

/// A program, and what distinguishes it from a replacement at the same path.
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
pub(in crate::trust) enum VerifierError {
    /// The directory, or an entry, cannot be read.
    #[error("the verifier directory cannot be used: {}: {source}; mount it there and make it readable", path.display())]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory holds no program.
    #[error(
        "the verifier directory {} holds no program, so it can admit no image; add one, or start without \
         --verifier-dir", .0.display()
    )]
    Empty(PathBuf),
    /// An entry is not an executable file.
    #[error("{} in the verifier directory is not an executable file; make it one (chmod +x), or remove it", .0.display())]
    NotExecutable(PathBuf),
    /// The directory holds too many entries.
    #[error("the verifier directory {} holds more than {PROGRAMS_MAX} entries; keep verifiers only", .0.display())]
    TooMany(PathBuf),
}

/// The programs in `directory`, sorted by name.
///
/// Names that begin with a dot are skipped: Kubernetes keeps the versions of a mounted ConfigMap under such names.
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
        // `metadata` follows links, as in a mounted ConfigMap.
        let found = std::fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
        // Skipping such an entry could skip a verifier that was installed wrongly.
        if !found.is_file() || found.mode() & 0o111 == 0 {
            return Err(VerifierError::NotExecutable(path));
        }
        if programs.len() == PROGRAMS_MAX {
            return Err(VerifierError::TooMany(directory.to_owned()));
        }
        // As for policy files: a replaced file has another inode, a changed one another ctime.
        let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
        let identity = [found.dev().into(), found.ino().into(), found.size().into(), changed];
        programs.push(Program { path, identity });
    }
    if programs.is_empty() {
        return Err(VerifierError::Empty(directory.to_owned()));
    }
    // `read_dir` has no order, and the order shows in messages.
    programs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(programs)
}
