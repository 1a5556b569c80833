//! Volume attributes: the same for inline volumes, PersistentVolumes and StorageClasses.
//!
//! The keys that Kubernetes adds (`csi.storage.k8s.io/*`, `storage.kubernetes.io/*`) are separated first. A user can
//! also write such keys where kubelet does not overwrite them, so their values are not trusted.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use super::upper::{Upper, UpperError};
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::oci::choice::{Choice, ChoiceError};
use crate::oci::platform::{Platform, PlatformError};
use crate::oci::reference::{Reference, ReferenceError, Version};
use crate::pull::PullPolicy;

/// The known attributes; `reference` is an alias of `image`.
pub(crate) const KEYS: [&str; 14] = [
    "image",
    IMAGES,
    "reference",
    "include",
    "exclude",
    "pullPolicy",
    "path",
    "platform",
    "noexec",
    "verify",
    "writable",
    "upperSizeLimit",
    "upperMedium",
    FOLLOW,
];
/// Whether the volume shows another image when its tag names another.
pub(super) const FOLLOW: &str = "follow";
/// The list of several images ([`super::members`]), in the place of `image`.
pub(super) const IMAGES: &str = "images";

/// The parsed attributes of a volume of one image, or of one of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The image.
    pub image: Reference,
    /// What of its tree the volume shows. `path` is looked for in that.
    pub choice: Choice,
    /// The pull policy, if the user sets one.
    pub pull_policy: Option<PullPolicy>,
    /// The sub-directory to mount, relative; empty for the root.
    pub path: PathBuf,
    /// The platform to choose from an index, if not the node's own.
    pub platform: Option<Platform>,
    /// Mount `noexec`.
    pub noexec: bool,
    /// The lowest integrity level, if the user demands one.
    pub verify: Option<Integrity>,
    /// What the pod may write, if it may. Of the volume, also where it has several images.
    pub upper: Option<Upper>,
    /// Show another image when the tag names another.
    pub follow: bool,
}

/// The pod that a volume is for, as its context says. It comes from kubelet if the CSIDriver has `podInfoOnMount` and a
/// pod is published for; else possibly from the volume's author. Whoever uses it must know which (`node::service`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PodInfo {
    /// The pod's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its unique id.
    pub uid: String,
    /// The ServiceAccount that it runs as.
    pub service_account: String,
}

impl PodInfo {
    /// The namespace, if it is known.
    pub fn namespace(&self) -> Option<String> {
        Some(self.namespace.clone()).filter(|namespace| !namespace.is_empty())
    }
}

impl fmt::Display for PodInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() { Ok(()) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Why attributes are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttributeError {
    /// The key is unknown.
    #[error("volume attribute {0:?} is not known; known are {known}", known = KEYS.join(", "))]
    Unknown(String),
    /// There is no image.
    #[error("volume attribute `image` is missing; write for example image: docker.io/library/busybox:1.36")]
    NoImage,
    /// There are two images.
    #[error("volume attributes `image` and `reference` mean the same; give only `image`")]
    TwoImages,
    /// There are an image and a list of images, or a list in a list.
    #[error(
        "volume attribute `images` is a list of images and stands alone; write every image as an entry of that list"
    )]
    ListAndImage,
    /// The list of images is none.
    #[error(
        "volume attribute `images` {problem}; write a YAML or JSON list of 1 to {most} entries such as \
             {{image: registry.example.com/models/base:1, at: base}}"
    )]
    List {
        /// What is wrong, a predicate.
        problem: String,
        /// The most entries.
        most: usize,
    },
    /// An entry of the list does not say where its image is shown.
    #[error("`at` is missing; write the directory of the volume that shows the image, or / for its root")]
    NoPlace,
    /// An entry of the list is malformed.
    #[error("volume attribute `images`, entry {number}: {error}")]
    Member {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        error: Box<AttributeError>,
    },
    /// The image reference is malformed.
    #[error("volume attribute `image`: {0}")]
    Image(#[from] ReferenceError),
    /// The platform is malformed.
    #[error("volume attribute `platform`: {0}")]
    Platform(#[from] PlatformError),
    /// The patterns of `include` or `exclude` are none.
    #[error("volume attributes: {0}")]
    Choice(#[from] ChoiceError),
    /// The volume cannot be written to as it asks for.
    #[error(transparent)]
    Upper(#[from] UpperError),
    /// The volume cannot follow its tag.
    #[error("volume attribute `follow` is true, and {why}")]
    Follow {
        /// Why not, and what to do.
        why: &'static str,
    },
    /// Another value is malformed.
    #[error("volume attribute `{key}` is {value:?}; {rule}")]
    Value {
        /// The attribute.
        key: &'static str,
        /// Its value, shortened.
        value: String,
        /// The allowed values.
        rule: &'static str,
    },
}

impl AttributeError {
    /// Refuses to let a volume that is not inline follow its tag.
    pub const NOT_INLINE: Self = Self::Follow {
        why: "only an inline volume can follow its tag, because a PersistentVolume shows the same everywhere and at all \
              times; leave `follow` out (for inline volumes, the CSIDriver needs podInfoOnMount)",
    };

    /// Invalid: the user wrote the attributes.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Attributes {
    /// Parses a `volume_context`, or the `parameters` of a StorageClass.
    ///
    /// # Errors
    /// A key is unknown, a value is malformed, or there is no image.
    pub fn parse(context: &HashMap<String, String>) -> Result<(Self, PodInfo), AttributeError> {
        let (added, given): (BTreeMap<&str, &str>, BTreeMap<&str, &str>) =
            context.iter().map(|(key, value)| (key.as_str(), value.as_str())).partition(|(key, _)| {
                key.starts_with("csi.storage.k8s.io/") || key.starts_with("storage.kubernetes.io/")
            });
        // A misspelt key must not be ignored: it may be a restriction.
        if let Some(unknown) = given.keys().find(|key| !KEYS.contains(key)) {
            return Err(AttributeError::Unknown(shortened(unknown)));
        }
        if given.contains_key(IMAGES) {
            return Err(AttributeError::ListAndImage);
        }
        let image = match (given.get("image"), given.get("reference")) {
            (Some(_), Some(_)) => return Err(AttributeError::TwoImages),
            (Some(image), None) | (None, Some(image)) => Reference::from_str(image)?,
            (None, None) => return Err(AttributeError::NoImage),
        };
        let choice = Choice::of_lines(given.get("include").copied(), given.get("exclude").copied())?;
        let attributes = Self {
            choice,
            pull_policy: given.get("pullPolicy").map(|text| policy(text)).transpose()?,
            path: given.get("path").map_or_else(|| Ok(PathBuf::new()), |text| sub_path("path", text))?,
            platform: given.get("platform").map(|text| Platform::from_str(text)).transpose()?,
            noexec: given.get("noexec").map_or(Ok(false), |text| flag("noexec", text))?,
            verify: given.get("verify").map(|text| level(text)).transpose()?,
            follow: given.get(FOLLOW).map_or(Ok(false), |text| flag(FOLLOW, text))?,
            upper: Upper::parse(&given)?,
            image,
        };
        if let Some(upper) = attributes.upper {
            upper.check_promises(attributes.noexec, attributes.verify)?;
        }
        attributes.check_follow()?;
        let of_pod = |key: &str| added.get(key).copied().unwrap_or_default().to_owned();
        let pod = PodInfo {
            name: of_pod("csi.storage.k8s.io/pod.name"),
            namespace: of_pod("csi.storage.k8s.io/pod.namespace"),
            uid: of_pod("csi.storage.k8s.io/pod.uid"),
            service_account: of_pod("csi.storage.k8s.io/serviceAccount.name"),
        };
        Ok((attributes, pod))
    }

    /// The pull policy: as for containers, the default is `Always` for the tag `latest`, else `IfNotPresent`.
    pub fn policy(&self) -> PullPolicy {
        self.pull_policy.unwrap_or_else(|| match self.image.version() {
            Version::Tag(tag) if tag == "latest" => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        })
    }

    /// What moves can be followed, if the registry may be asked.
    fn check_follow(&self) -> Result<(), AttributeError> {
        let why = match self.pull_policy {
            _ if !self.follow => return Ok(()),
            _ if self.image.digest().is_some() => {
                "the image is named by a digest, which never names another; name a tag only, or leave `follow` out"
            }
            _ if self.upper.is_some() => {
                "`writable` is true, and what a pod has written belongs to the image that it was written over; leave one \
                 of the two out"
            }
            Some(PullPolicy::Never) => {
                "`pullPolicy` is Never, so the registry is not asked what the tag names; leave one of the two out"
            }
            _ => return Ok(()),
        };
        Err(AttributeError::Follow { why })
    }

    /// A `volume_context` with these attributes and another image.
    pub fn context_with(&self, image: &Reference) -> HashMap<String, String> {
        let mut context = HashMap::from([("image".to_owned(), image.to_string())]);
        for (key, patterns) in [("include", self.choice.include()), ("exclude", self.choice.exclude())] {
            if !patterns.is_empty() {
                context.insert(key.to_owned(), patterns.join("\n"));
            }
        }
        if let Some(policy) = self.pull_policy {
            context.insert("pullPolicy".to_owned(), policy_name(policy).to_owned());
        }
        if !self.path.as_os_str().is_empty() {
            context.insert("path".to_owned(), self.path.to_string_lossy().into_owned());
        }
        if let Some(platform) = &self.platform {
            context.insert("platform".to_owned(), platform.to_string());
        }
        if self.noexec {
            context.insert("noexec".to_owned(), "true".to_owned());
        }
        if let Some(level) = self.verify {
            context.insert("verify".to_owned(), level.to_string());
        }
        context.extend(self.upper.into_iter().flat_map(Upper::context));
        if self.follow {
            context.insert(FOLLOW.to_owned(), "true".to_owned());
        }
        context
    }
}

fn policy(text: &str) -> Result<PullPolicy, AttributeError> {
    match text {
        "Always" => Ok(PullPolicy::Always),
        "IfNotPresent" => Ok(PullPolicy::IfNotPresent),
        "Never" => Ok(PullPolicy::Never),
        _ => Err(malformed("pullPolicy", text, "it must be Always, IfNotPresent or Never")),
    }
}

fn policy_name(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::Always => "Always",
        PullPolicy::IfNotPresent => "IfNotPresent",
        PullPolicy::Never => "Never",
    }
}

fn flag(key: &'static str, text: &str) -> Result<bool, AttributeError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(malformed(key, text, "it must be true or false")),
    }
}

fn level(text: &str) -> Result<Integrity, AttributeError> {
    match text {
        "fetch" => Ok(Integrity::Fetch),
        "mount" => Ok(Integrity::Mount),
        "read" => Ok(Integrity::Read),
        _ => Err(malformed("verify", text, "it must be fetch, mount or read")),
    }
}

/// Parses a path in the attribute `key`. Paths are relative to the image's or the volume's root, so a leading slash is
/// ignored.
pub(super) fn sub_path(key: &'static str, text: &str) -> Result<PathBuf, AttributeError> {
    let rule = match key {
        "at" => "it must be a directory inside the volume, without `..`",
        _ => "it must be a directory inside the image, without `..`",
    };
    let refused = || malformed(key, text, rule);
    if text.chars().any(char::is_control) {
        return Err(refused());
    }
    Path::new(text)
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(refused()),
        })
        .collect()
}

fn malformed(key: &'static str, value: &str, rule: &'static str) -> AttributeError {
    AttributeError::Value { key, value: shortened(value), rule }
}

fn shortened(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<(Attributes, PodInfo), AttributeError> {
        let context = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Attributes::parse(&context)
    }

    const IMAGE: (&str, &str) = ("image", "r.example/a/b:1");
    const WRITABLE: (&str, &str) = ("writable", "true");
    const LIMIT: (&str, &str) = ("upperSizeLimit", "64Mi");
    const PINNED: &str =
        "r.example/a:1@sha256:0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn everything_at_once_and_back() {
        let (attributes, pod) = parse(&[
            ("reference", "r.example/a/b:1"),
            ("include", "b/*\n  /a\n"),
            ("exclude", "**/*.md"),
            ("pullPolicy", "Never"),
            ("path", "/usr/./share/"),
            ("platform", "linux/arm64"),
            ("noexec", "true"),
            ("verify", "mount"),
            ("csi.storage.k8s.io/pod.name", "web-0"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/serviceAccount.tokens", "secret"),
            ("storage.kubernetes.io/csiProvisionerIdentity", "1"),
        ])
        .unwrap();
        assert_eq!(attributes.path, Path::new("usr/share"));
        assert_eq!(attributes.policy(), PullPolicy::Never);
        assert!(attributes.noexec);
        assert_eq!(pod.to_string(), "shop/web-0");
        let again = Attributes::parse(&attributes.context_with(&attributes.image)).unwrap().0;
        assert_eq!(again, attributes);
        let (writable, _) = parse(&[IMAGE, WRITABLE, LIMIT, ("verify", "mount")]).unwrap();
        assert_eq!(writable.upper, Some(Upper { bytes: 64 << 20, on_disk: false }));
        assert_eq!(Attributes::parse(&writable.context_with(&writable.image)).unwrap().0, writable);
    }

    #[test]
    fn defaults() {
        let (attributes, pod) = parse(&[IMAGE]).unwrap();
        assert_eq!((attributes.policy(), attributes.noexec), (PullPolicy::IfNotPresent, false));
        assert_eq!((attributes.path, attributes.platform), (PathBuf::new(), None));
        assert!(!attributes.follow && parse(&[IMAGE, ("follow", "true")]).unwrap().0.follow);
        assert_eq!(pod, PodInfo::default());
        for latest in ["r.example/a", "r.example/a:latest"] {
            assert_eq!(parse(&[("image", latest)]).unwrap().0.policy(), PullPolicy::Always);
        }
        let pinned = format!("r.example/a@sha256:{}", "0".repeat(64));
        assert_eq!(parse(&[("image", &pinned)]).unwrap().0.policy(), PullPolicy::IfNotPresent);
    }

    #[test]
    fn refusals_name_the_attribute() {
        for (bad, word) in [
            (vec![], "`image` is missing"),
            (vec![IMAGE, ("reference", "r.example/a")], "only `image`"),
            (
                vec![IMAGE, ("pullpolicy", "Always")],
                "known are image, images, reference, include, exclude, pullPolicy",
            ),
            (vec![IMAGE, ("images", "[]")], "stands alone"),
            (vec![IMAGE, ("pullPolicy", "always")], "Always, IfNotPresent or Never"),
            (vec![IMAGE, ("path", "../x")], "`path`"),
            (vec![IMAGE, ("path", "a/../../x")], "`path`"),
            (vec![IMAGE, ("path", "a\nb")], "`path`"),
            (vec![IMAGE, ("platform", "amd64")], "`platform`"),
            (vec![IMAGE, ("noexec", "yes")], "`noexec`"),
            (vec![IMAGE, ("verify", "Read")], "fetch, mount or read"),
            (vec![("image", "busybox")], "`image`"),
            (vec![IMAGE, ("writable", "true")], "`upperSizeLimit`"),
            (vec![IMAGE, WRITABLE, LIMIT, ("noexec", "true")], "does not go with `noexec`"),
            (vec![IMAGE, WRITABLE, LIMIT, ("verify", "read")], "does not go with `verify: read`"),
            (vec![IMAGE, ("follow", "yes")], "`follow`"),
            (vec![IMAGE, ("follow", "true"), ("pullPolicy", "Never")], "`pullPolicy` is Never"),
            (vec![("image", PINNED), ("follow", "true")], "named by a digest"),
            (vec![IMAGE, WRITABLE, LIMIT, ("follow", "true")], "`writable` is true"),
        ] {
            let error = parse(&bad).unwrap_err();
            assert!(error.to_string().contains(word), "{error} should hold {word:?}");
            assert_eq!(error.kind(), Kind::Invalid);
        }
    }
}
