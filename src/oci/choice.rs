//! What of an image or artifact is wanted: `include` and `exclude`, patterns of paths in its tree.
//!
//! A file is taken if a pattern of `include` matches its path or a directory that it lies in, and none of `exclude` does.
//! Without patterns of `include` everything is included. The directories on the way to what is taken are there as well.
//!
//! Paths are relative to the root and have no leading slash. In patterns `*` and `?` stand for characters of one name,
//! `**` for any directories, `[a-z]` for one of these characters, `{a,b}` for either; a backslash takes the meaning from
//! the next character. A pattern is for the whole path: `*.json` matches at the root only, `**/*.json` everywhere.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use super::digest::{Digest, Hasher};
use crate::kind::Kind;

/// Patterns in all.
const PATTERNS_MAX: usize = 64;
/// Bytes of all patterns together: what their automata take in memory is bounded by it.
const BYTES_MAX: usize = 4096;
/// Paths that consist of more names are looked at as far as this; the kernel opens none of them.
const DEPTH_MAX: usize = 4096;

/// What is wanted of a tree; by default all of it. Two choices are equal if they have the same patterns, in any order.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Choice(
    /// `None` if there are no patterns. Shared: it is carried beside every reference.
    Option<Arc<Globs>>,
);

/// The patterns as records and attributes have them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    include: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
}

#[derive(Debug)]
struct Globs {
    patterns: Written,
    include: GlobSet,
    exclude: GlobSet,
}

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is left out, with all below it.
    Left,
    /// Nothing takes it. Something below it may be taken.
    Open,
    /// It is taken, with all below it that is not left out.
    Taken,
}

/// Which patterns of `include` have matched something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used(Vec<bool>);

/// Why patterns are no choice, or one that takes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// A pattern that is none.
    #[error(
        "the pattern {pattern:?} of `{list}` {why}; patterns are paths in the image with *, **, ?, [a-z] and {{a,b}}, each on \
         a line of its own"
    )]
    Pattern {
        /// `include` or `exclude`.
        list: &'static str,
        /// The pattern, shortened.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A list without a pattern, which might mean everything or nothing.
    #[error("`{0}` is there but has no pattern; write one on each line, or leave it out")]
    Empty(&'static str),
    /// More than a node compiles.
    #[error(
        "`include` and `exclude` have {count} patterns of {bytes} bytes in all, and at most {PATTERNS_MAX} of {BYTES_MAX} \
         bytes are taken; name directories, or join patterns by {{a,b}}"
    )]
    TooMany {
        /// Patterns.
        count: usize,
        /// Bytes of them.
        bytes: usize,
    },
    /// A pattern to which nothing corresponds.
    #[error(
        "the pattern {pattern:?} of `include` matches nothing in the image; `composefs-csi inspect --remote` lists what there is, and \
         a name in any directory is written **/NAME"
    )]
    Unmatched {
        /// The pattern.
        pattern: String,
    },
    /// All that is included is excluded.
    #[error("{choice} takes nothing, and an empty volume would say nothing; exclude less")]
    Nothing {
        /// The choice.
        choice: Choice,
    },
}

impl ChoiceError {
    /// Invalid: somebody wrote the patterns for another image.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Choice {
    /// Parses patterns. A leading `/` or `./` and a trailing `/` mean nothing.
    ///
    /// # Errors
    /// A pattern is malformed, or there are too many.
    pub fn new(
        include: impl IntoIterator<Item = impl Into<String>>,
        exclude: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, ChoiceError> {
        let (include, exclude): (Vec<String>, Vec<String>) =
            (include.into_iter().map(Into::into).collect(), exclude.into_iter().map(Into::into).collect());
        let count = include.len() + exclude.len();
        let bytes = include.iter().chain(&exclude).map(String::len).sum();
        if count > PATTERNS_MAX || bytes > BYTES_MAX {
            return Err(ChoiceError::TooMany { count, bytes });
        }
        let patterns =
            Written { include: cleaned("include", include)?, exclude: cleaned("exclude", exclude)? };
        if count == 0 {
            return Ok(Self::default());
        }
        let include = compiled("include", &patterns.include)?;
        let exclude = compiled("exclude", &patterns.exclude)?;
        Ok(Self(Some(Arc::new(Globs { patterns, include, exclude }))))
    }

    /// Parses two attributes, each a list of patterns with one on each line.
    ///
    /// # Errors
    /// Those of [`Choice::new`], and an attribute without a pattern.
    pub fn of_lines(include: Option<&str>, exclude: Option<&str>) -> Result<Self, ChoiceError> {
        let lines = |list: &'static str, text: Option<&str>| {
            let Some(text) = text else { return Ok(Vec::new()) };
            let lines: Vec<String> =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
            if lines.is_empty() { Err(ChoiceError::Empty(list)) } else { Ok(lines) }
        };
        Self::new(lines("include", include)?, lines("exclude", exclude)?)
    }

    /// Whether everything is wanted: there are no patterns.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// The patterns of `include`, sorted.
    pub fn include(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |globs| &globs.patterns.include)
    }

    /// The patterns of `exclude`, sorted.
    pub fn exclude(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |globs| &globs.patterns.exclude)
    }

    /// By what this choice of the thing with digest `of` is known: that digest itself, if everything is wanted. Otherwise it
    /// is the digest of no blob.
    pub fn key(&self, of: &Digest) -> Digest {
        if self.is_all() {
            return *of;
        }
        let mut hasher = Hasher::default();
        hasher.update(b"composefs-csi: a choice of\0");
        hasher.update(of.to_string().as_bytes());
        for (sign, patterns) in [(b"\0+", self.include()), (b"\0-", self.exclude())] {
            for pattern in patterns {
                hasher.update(sign);
                hasher.update(pattern.as_bytes());
            }
        }
        hasher.finish()
    }

    /// What is taken of which nothing is said: all, unless something is to be included.
    pub fn takes_by_default(&self) -> bool {
        self.include().is_empty()
    }

    /// No pattern has matched anything.
    pub fn unused(&self) -> Used {
        Used(vec![false; self.include().len()])
    }

    /// What becomes of a path, given whether the directory that it is in is taken. It is relative, and in the form of
    /// [`crate::image::entry::LayerEntry::path`]. Patterns that match it are marked in `used`.
    pub fn verdict(&self, path: &[u8], taken: bool, used: &mut Used) -> Verdict {
        let Some(globs) = &self.0 else { return Verdict::Taken };
        let candidate = Candidate::new(Path::new(OsStr::from_bytes(path)));
        if globs.exclude.is_match_candidate(&candidate) {
            return Verdict::Left;
        }
        let matching = globs.include.matches_candidate(&candidate);
        for index in &matching {
            if let Some(used) = used.0.get_mut(*index) {
                *used = true;
            }
        }
        if taken || !matching.is_empty() { Verdict::Taken } else { Verdict::Open }
    }

    /// Whether the file at this path is taken, by itself or with a directory that it is in.
    pub fn takes(&self, path: &[u8]) -> bool {
        self.takes_noting(path, &mut self.unused())
    }

    /// The same, marking in `used` the patterns that match the file or one of its directories.
    pub fn takes_noting(&self, path: &[u8], used: &mut Used) -> bool {
        if self.is_all() {
            return true;
        }
        let mut taken = self.takes_by_default();
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.take(DEPTH_MAX).chain([path.len()]) {
            match self.verdict(path.get(..end).unwrap_or(path), taken, used) {
                Verdict::Left => return false,
                Verdict::Taken => taken = true,
                Verdict::Open => {}
            }
        }
        taken
    }

    /// Whether something below the directory may be taken. What is said to be may still not be.
    pub fn may_take_below(&self, directory: &str) -> bool {
        let Some(globs) = &self.0 else { return true };
        let inside = |end: usize| directory.get(..end).unwrap_or(directory);
        let ends: Vec<usize> =
            directory.match_indices('/').map(|(end, _)| end).chain([directory.len()]).collect();
        if ends.iter().any(|end| globs.exclude.is_match(inside(*end))) {
            return false;
        }
        let is_below = |pattern: &String| {
            // As far as the pattern has no sign of its own, it is a path.
            let fixed: Vec<&str> =
                pattern.split('/').take_while(|name| !name.contains(['*', '?', '[', '{', '\\'])).collect();
            fixed.iter().zip(directory.split('/')).all(|(fixed, name)| *fixed == name)
        };
        self.takes_by_default() || self.include().iter().any(is_below)
    }

    /// That every pattern of `include` has matched something.
    ///
    /// # Errors
    /// One has not.
    pub fn check_used(&self, used: &Used) -> Result<(), ChoiceError> {
        let unused = self.include().iter().zip(&used.0).find(|(_, used)| !**used);
        unused.map_or(Ok(()), |(pattern, _)| Err(ChoiceError::Unmatched { pattern: pattern.clone() }))
    }
}

/// The patterns as they are compared with paths.
fn cleaned(list: &'static str, patterns: Vec<String>) -> Result<Vec<String>, ChoiceError> {
    let clean = |pattern: String| {
        let mut rest = pattern.as_str();
        while let Some(shorter) = rest.strip_prefix("./").or_else(|| rest.strip_prefix('/')) {
            rest = shorter;
        }
        let rest = rest.trim_end_matches('/');
        let why = if rest.is_empty() || rest == "." {
            "is not a path in the image"
        } else if rest.chars().any(char::is_control) {
            "has a control character"
        } else if rest.split('/').any(|name| matches!(name, "" | "." | "..")) {
            "has an empty name, `.` or `..`"
        } else {
            return Ok(rest.to_owned());
        };
        Err(malformed(list, &pattern, why.to_owned()))
    };
    let mut all = patterns.into_iter().map(clean).collect::<Result<Vec<_>, _>>()?;
    // Neither order nor repetition makes another choice.
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn compiled(list: &'static str, patterns: &[String]) -> Result<GlobSet, ChoiceError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
        set.add(glob.map_err(|error| malformed(list, pattern, format!("is malformed: {}", error.kind())))?);
    }
    let whole = || patterns.first().map_or("", String::as_str);
    set.build().map_err(|error| malformed(list, whole(), format!("and the others: {}", error.kind())))
}

fn malformed(list: &'static str, pattern: &str, why: String) -> ChoiceError {
    ChoiceError::Pattern { list, pattern: pattern.chars().take(200).collect(), why }
}

impl TryFrom<Written> for Choice {
    type Error = ChoiceError;

    fn try_from(written: Written) -> Result<Self, ChoiceError> {
        Self::new(written.include, written.exclude)
    }
}

impl From<Choice> for Written {
    fn from(choice: Choice) -> Self {
        choice.0.map_or_else(Self::default, |globs| globs.patterns.clone())
    }
}

impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        (self.include(), self.exclude()) == (other.include(), other.exclude())
    }
}

impl Eq for Choice {}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Choice").field(&self.include()).field(&self.exclude()).finish()
    }
}

/// `include "a", "b" and exclude "c"`; `everything` if there are no patterns.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[String]| {
            patterns.iter().map(|pattern| format!("{pattern:?}")).collect::<Vec<_>>().join(", ")
        };
        match (self.include(), self.exclude()) {
            ([], []) => f.write_str("everything"),
            (include, []) => write!(f, "include {}", list(include)),
            ([], exclude) => write!(f, "exclude {}", list(exclude)),
            (include, exclude) => write!(f, "include {} and exclude {}", list(include), list(exclude)),
        }
    }
}

#[cfg(test)]
mod tests;
