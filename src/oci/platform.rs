//! Platforms, and the choice of a manifest from an index.
//!
//! Names are Go's (`amd64`, `arm64`), as in OCI image-spec 1.1, image-index.md. Matching follows
//! containerd: a variant is a level of capability. A node runs its own level and those below, and
//! prefers the highest. If nothing is for its own architecture, it takes what is for the 32-bit one: 386 on amd64, arm on
//! arm64.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// An operating system and a processor, with the processor's variant where it matters.
///
/// It is always in canonical form: `aarch64` is `arm64`, `arm64/v8` is `arm64`, `amd64/v1` is `amd64`,
/// `arm` without variant is `arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Why a platform could not be parsed or found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlatformError {
    /// Not `os/arch[/variant]`.
    #[error("{0:?} is not a platform; write os/arch or os/arch/variant, for example linux/arm64")]
    Malformed(String),
    /// An index has nothing that the wanted platform can run.
    #[error(
        "there is no image for {wanted}; the index offers {}; choose one with the platform \
         setting, or build the image for {wanted}",
        list(offered)
    )]
    NoMatch {
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        offered: Vec<Platform>,
    },
}

impl PlatformError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed(_) => Kind::Invalid,
            Self::NoMatch { .. } => Kind::NotFound,
        }
    }
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "no platform at all".to_owned();
    }
    platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ")
}

impl Platform {
    /// A platform in canonical form.
    pub(super) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = canonical(
            &architecture.to_ascii_lowercase(),
            variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty()),
        );
        // As containerd does: whoever leaves out the system means the one that containers have.
        let os = if os.is_empty() && !architecture.is_empty() {
            "linux".to_owned()
        } else {
            os.to_ascii_lowercase()
        };
        Self { os, architecture, variant }
    }

    /// Whether nothing is stated at all, as in a config without a platform.
    pub fn is_empty(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    /// The platform of this machine's kernel and processor.
    pub fn host() -> Self {
        let machine = rustix::system::uname();
        Self::of_machine(&machine.machine().to_string_lossy(), amd64_level())
    }

    /// The Linux platform for `uname -m`; `amd64_level` is the x86-64 level (1 to 4) if it is one.
    fn of_machine(machine: &str, amd64_level: u8) -> Self {
        let level = format!("v{amd64_level}");
        let (architecture, variant) = match machine {
            "x86_64" => ("amd64", Some(level.as_str())),
            "i386" | "i486" | "i586" | "i686" => ("386", None),
            "aarch64" => ("arm64", None),
            // `armv8l` is a 32-bit process on a 64-bit kernel.
            "armv8l" | "armv7l" => ("arm", Some("v7")),
            "armv6l" => ("arm", Some("v6")),
            "armv5tel" | "armv5tejl" => ("arm", Some("v5")),
            "loongarch64" => ("loong64", None),
            "mips64" => ("mips64", None),
            other => (other, None),
        };
        Self::new("linux", architecture, variant)
    }

    /// How well an image for `offered` suits this platform. `None` if it cannot run here; a higher
    /// number is better, and one of at least [`OWN`] means the platform's own architecture.
    pub fn suitability(&self, offered: &Self) -> Option<u8> {
        let level = |platform: &Self| match &platform.variant {
            Some(variant) => variant.strip_prefix('v').and_then(|level| level.parse::<u8>().ok()),
            None => Some(base_level(&platform.architecture)),
        };
        let below_own = |level: u8| level.min(OWN - 1);
        match (self.architecture.as_str(), offered.architecture.as_str()) {
            _ if self.os != offered.os => None,
            (here, there) if here == there => match (level(self), level(offered)) {
                (Some(here), Some(there)) => (there <= here).then_some(OWN + below_own(there)),
                // A variant that is not a level is a name, and a name matches only itself.
                _ => (self.variant == offered.variant).then_some(OWN),
            },
            ("amd64", "386") => level(offered).map(below_own),
            ("arm64", "arm") => level(offered).filter(|level| *level <= base_level("arm64")).map(below_own),
            _ => None,
        }
    }

    /// Chooses the best entry of an index. Of equals the first wins, since the index is ordered.
    ///
    /// An entry without a platform is chosen if it is the only one, because builders of single images leave the platform
    /// out. Among others it is asked about if none is for the own architecture. `unknown/unknown` is what only a platform
    /// of that name suits.
    ///
    /// # Errors
    /// No entry can run on this platform.
    pub fn choose<'a, T>(
        &self,
        entries: &[&'a T],
        platform_of: impl Fn(&T) -> Option<&Self>,
    ) -> Result<Choice<'a, T>, PlatformError> {
        let mut best: Option<(u8, &T)> = None;
        for entry in entries {
            let suits = platform_of(entry).and_then(|offered| self.suitability(offered));
            // `>` and not `>=`: of equals the first wins.
            if let Some(score) = suits
                && best.is_none_or(|(high, _)| score > high)
            {
                best = Some((score, entry));
            }
        }
        let unstated: Vec<&T> =
            entries.iter().copied().filter(|entry| platform_of(entry).is_none()).collect();
        match (best, &unstated[..]) {
            (Some((score, entry)), _) if score >= OWN => Ok(Choice::Entry(entry)),
            (Some((_, entry)), []) => Ok(Choice::Entry(entry)),
            (None, [only]) if entries.len() == 1 => Ok(Choice::Entry(only)),
            (None, []) => Err(self.no_match(entries.iter().filter_map(|entry| platform_of(entry)))),
            (best, _) => Ok(Choice::Ask { unstated, otherwise: best.map(|(_, entry)| entry) }),
        }
    }

    /// The error where nothing of what is offered suits.
    pub fn no_match<'a>(&self, offered: impl Iterator<Item = &'a Self>) -> PlatformError {
        PlatformError::NoMatch { wanted: self.clone(), offered: offered.take(OFFERED_MAX).cloned().collect() }
    }
}

/// What [`Platform::suitability`] is at least for an image of the same architecture.
pub const OWN: u8 = 100;

/// The number of platforms that a message lists.
const OFFERED_MAX: usize = 50;

/// What an index has for a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a, T> {
    /// This entry.
    Entry(&'a T),
    /// Nothing is for the own architecture, as far as the index says.
    Ask {
        /// Entries without a platform, whose config may state it.
        unstated: Vec<&'a T>,
        /// The entry to take if none of them suits.
        otherwise: Option<&'a T>,
    },
}

/// The level of a processor without a variant.
fn base_level(architecture: &str) -> u8 {
    match architecture {
        "arm64" => 8,
        "arm" => 7,
        _ => 1,
    }
}

/// The canonical names, so that equal platforms compare equal.
fn canonical(architecture: &str, variant: Option<String>) -> (String, Option<String>) {
    let variant = variant.as_deref();
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64", None),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", Some("8" | "v8" | "v8.0") | None) => ("arm64", None),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
        ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("8")) => ("arm", Some("v8")),
        ("i386", _) => ("386", None),
        other => other,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

/// The x86-64 level of this processor (System V ABI, AMD64 supplement, "micro-architecture
/// levels"); 1 on any other.
fn amd64_level() -> u8 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        if !(has!("ssse3") && has!("sse4.2") && has!("popcnt") && has!("cmpxchg16b")) {
            return 1;
        }
        let three = has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("fma");
        if !(three && has!("lzcnt") && has!("movbe")) {
            return 2;
        }
        let four = has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq");
        if four && has!("avx512vl") { 4 } else { 3 }
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let malformed = || PlatformError::Malformed(text.chars().take(100).collect());
        let word = |part: &str| {
            (1..=32).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| word(part)) {
            return Err(malformed());
        }
        match parts[..] {
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(malformed()),
        }
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, PlatformError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests;
