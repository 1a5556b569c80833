//! What a volume shows: one image, or several in one tree.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::attributes::{AttributeError, Attributes, FOLLOW, IMAGES, PodInfo};
use super::members;
pub(crate) use super::members::Member;
use super::upper::{self, Upper};
use crate::integrity::Integrity;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::pull::PullPolicy;

/// Images that are named where the content is named; of more only the number is said.
const NAMED: usize = 3;
/// Stands for the images where only the other attributes are read.
const ANY_IMAGE: &str = "images.invalid/images:1";

/// What a volume shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// One image.
    One(Attributes),
    /// Several, each at its place.
    Many(Many),
}

/// Several images in one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Many {
    /// The images; where their directories meet, later ones decide on owner, mode and time. At least one.
    pub members: Vec<Member>,
    /// The sub-directory of the whole to mount, relative; empty for the root.
    pub path: PathBuf,
    /// Mount `noexec`.
    pub noexec: bool,
    /// The lowest integrity level, if the user demands one.
    pub verify: Option<Integrity>,
    /// What the pod may write, if it may.
    pub upper: Option<Upper>,
}

impl Content {
    /// Parses a `volume_context`, or the `parameters` of a StorageClass.
    ///
    /// # Errors
    /// A key is unknown, a value is malformed, or there is no image.
    pub fn parse(context: &HashMap<String, String>) -> Result<(Self, PodInfo), AttributeError> {
        let Some(list) = context.get(IMAGES) else {
            let (attributes, pod) = Attributes::parse(context)?;
            return Ok((Self::One(attributes), pod));
        };
        if context.contains_key("image") || context.contains_key("reference") {
            return Err(AttributeError::ListAndImage);
        }
        // As the attributes of an image, so that nothing is read in two ways.
        let mut whole = context.clone();
        whole.remove(IMAGES);
        let mut defaults = whole.clone();
        whole.insert("image".to_owned(), ANY_IMAGE.to_owned());
        let (Attributes { path, noexec, verify, upper, follow, .. }, pod) = Attributes::parse(&whole)?;
        if follow {
            let why = "a volume of several images shows the same ones for as long as it is there; write one volume for \
                       each image that is to be followed";
            return Err(AttributeError::Follow { why });
        }
        // What is said of the volume holds for each of its images, but for its sub-directory and what is written over them.
        let of_volume = |key: &str| key == "path" || key == FOLLOW || upper::KEYS.contains(&key);
        defaults.retain(|key, _| !key.contains('/') && !of_volume(key));
        let members = members::parse(list, &defaults)?;
        if let Some(upper) = upper {
            members
                .iter()
                .map(|member| &member.attributes)
                .try_for_each(|image| upper.check_promises(image.noexec, image.verify))?;
        }
        Ok((Self::Many(Many { members, path, noexec, verify, upper }), pod))
    }

    /// The attributes of each image, in their order.
    pub fn images(&self) -> Vec<&Attributes> {
        match self {
            Self::One(attributes) => vec![attributes],
            Self::Many(many) => many.members.iter().map(|member| &member.attributes).collect(),
        }
    }

    /// The sub-directory of the whole to mount, relative; empty for the root.
    pub fn path(&self) -> &Path {
        match self {
            Self::One(attributes) => &attributes.path,
            Self::Many(many) => &many.path,
        }
    }

    /// Whether nothing in the volume may be executed.
    pub fn noexec(&self) -> bool {
        match self {
            Self::One(attributes) => attributes.noexec,
            Self::Many(many) => many.noexec,
        }
    }

    /// The reference that the volume follows, if it follows its tag.
    pub fn followed(&self) -> Option<&Reference> {
        match self {
            Self::One(attributes) => attributes.follow.then_some(&attributes.image),
            Self::Many(_) => None,
        }
    }

    /// The same, asking the registry anew whatever the pull policy says.
    #[must_use]
    pub fn asked_anew(self) -> Self {
        match self {
            Self::One(attributes) => {
                Self::One(Attributes { pull_policy: Some(PullPolicy::Always), ..attributes })
            }
            many @ Self::Many(_) => many,
        }
    }

    /// The lowest integrity level that is demanded of the volume or of one of its images.
    pub fn verify(&self) -> Option<Integrity> {
        let of_volume = match self {
            Self::One(_) => None,
            Self::Many(many) => many.verify,
        };
        self.images().iter().map(|image| image.verify).fold(of_volume, Ord::max)
    }

    /// What the pod may write, if it may.
    pub fn upper(&self) -> Option<Upper> {
        match self {
            Self::One(attributes) => attributes.upper,
            Self::Many(many) => many.upper,
        }
    }

    /// A text that is the same for the same content only: the reference of one image, or the list of several.
    pub fn text(&self) -> String {
        match self {
            Self::One(attributes) => attributes.image.to_string(),
            Self::Many(many) => members::render(&many.members),
        }
    }

    /// What is taken of one image; several say it in their list.
    pub fn choice(&self) -> Choice {
        match self {
            Self::One(attributes) => attributes.choice.clone(),
            Self::Many(_) => Choice::default(),
        }
    }

    /// The platform that one image is chosen for; several say it in their list.
    pub fn platform(&self) -> Option<String> {
        match self {
            Self::One(attributes) => attributes.platform.as_ref().map(ToString::to_string),
            Self::Many(_) => None,
        }
    }

    /// A `volume_context` with this content.
    pub fn context(&self) -> HashMap<String, String> {
        let many = match self {
            Self::One(attributes) => return attributes.context_with(&attributes.image),
            Self::Many(many) => many,
        };
        let mut context = HashMap::from([(IMAGES.to_owned(), members::render(&many.members))]);
        if !many.path.as_os_str().is_empty() {
            context.insert("path".to_owned(), many.path.to_string_lossy().into_owned());
        }
        if many.noexec {
            context.insert("noexec".to_owned(), "true".to_owned());
        }
        if let Some(level) = many.verify {
            context.insert("verify".to_owned(), level.to_string());
        }
        context.extend(many.upper.into_iter().flat_map(Upper::context));
        context
    }

    /// The same, each image pinned to a digest; in their order.
    #[must_use]
    pub fn pinned(&self, digests: &[Digest]) -> Self {
        let mut pinned = self.clone();
        let images: Vec<&mut Attributes> = match &mut pinned {
            Self::One(attributes) => vec![attributes],
            Self::Many(many) => many.members.iter_mut().map(|member| &mut member.attributes).collect(),
        };
        for (attributes, digest) in images.into_iter().zip(digests) {
            attributes.image = attributes.image.clone().pinned(*digest);
        }
        pinned
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(attributes) => write!(f, "{}", attributes.image),
            Self::Many(many) => {
                f.write_str(&title(many.members.iter().map(|member| &member.attributes.image)))
            }
        }
    }
}

/// Several images by name: `3 images (a, b, c)`, `9 images (a, b, c, …)`.
fn title<T: fmt::Display>(images: impl ExactSizeIterator<Item = T>) -> String {
    let count = images.len();
    let mut names: Vec<String> = images.take(NAMED).map(|image| image.to_string()).collect();
    if count > NAMED {
        names.push("…".to_owned());
    }
    format!("{count} images ({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<(Content, PodInfo), AttributeError> {
        Content::parse(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    const LIST: &str = "[{image: r.io/a:1, at: a, verify: read}, {image: r.io/b:1, at: b, path: x}]";

    #[test]
    fn one_image_is_as_ever() {
        let (content, _) = parse(&[("image", "r.io/a:1"), ("path", "x"), ("verify", "mount")]).unwrap();
        assert_eq!((content.to_string(), content.text()), ("r.io/a:1".to_owned(), "r.io/a:1".to_owned()));
        assert_eq!((content.path(), content.verify()), (Path::new("x"), Some(Integrity::Mount)));
        assert_eq!(Content::parse(&content.context()).unwrap().0, content);
    }

    #[test]
    fn what_is_said_of_the_volume_holds_for_its_images() {
        let (content, pod) = parse(&[
            ("images", LIST),
            ("path", "b"),
            ("noexec", "true"),
            ("pullPolicy", "Never"),
            ("csi.storage.k8s.io/pod.name", "web-0"),
        ])
        .unwrap();
        assert_eq!((content.path(), content.noexec(), pod.name.as_str()), (Path::new("b"), true, "web-0"));
        assert_eq!(content.verify(), Some(Integrity::Read), "the highest counts");
        let images = content.images();
        assert!(images.iter().all(|image| image.noexec && image.policy() == PullPolicy::Never));
        assert_eq!(
            images.iter().map(|image| image.path.clone()).collect::<Vec<_>>(),
            ["", "x"].map(PathBuf::from)
        );
        assert_eq!(Content::parse(&content.context()).unwrap().0, content);
    }

    #[test]
    fn a_volume_is_writable_as_a_whole() {
        let writable = [("writable", "true"), ("upperSizeLimit", "2Mi")];
        let list = "[{image: r.io/a:1, at: a}, {image: r.io/b:1, at: b}]";
        let of = |list: &'static str| parse(&[("images", list), writable[0], writable[1]]);
        let (content, _) = of(list).unwrap();
        assert_eq!(content.upper(), Some(Upper { bytes: 2 << 20, on_disk: false }));
        assert!(content.images().iter().all(|image| image.upper.is_none()));
        assert_eq!(Content::parse(&content.context()).unwrap().0, content);
        for list in [
            "[{image: r.io/a:1, at: a, writable: true, upperSizeLimit: 1Mi}]",
            "[{image: r.io/a:1, at: a, upperMedium: Memory}]",
        ] {
            for error in [of(list).unwrap_err(), parse(&[("images", list)]).unwrap_err()] {
                assert!(error.to_string().contains("write it beside `images`"), "{error}");
            }
        }
        // An image that demands checks of every read is not written over either.
        let error = of("[{image: r.io/a:1, at: a, verify: read}]").unwrap_err();
        assert!(error.to_string().contains("does not go with `verify: read`"), "{error}");
        let error = of("[{image: r.io/a:1, at: a, noexec: true}]").unwrap_err();
        assert!(error.to_string().contains("does not go with `noexec`"), "{error}");
    }

    #[test]
    fn one_image_may_be_followed_and_several_may_not() {
        let (content, _) =
            parse(&[("image", "r.io/a:1"), ("follow", "true"), ("pullPolicy", "IfNotPresent")]).unwrap();
        assert_eq!(content.followed().unwrap().to_string(), "r.io/a:1");
        assert_eq!(Content::parse(&content.context()).unwrap().0, content);
        assert_eq!(content.asked_anew().images()[0].policy(), PullPolicy::Always);
        assert_eq!(parse(&[("images", LIST), ("follow", "false")]).unwrap().0.followed(), None);
        let error = parse(&[("images", LIST), ("follow", "true")]).unwrap_err();
        assert!(error.to_string().contains("several images"), "{error}");
    }

    #[test]
    fn each_image_is_pinned() {
        let (content, _) = parse(&[("images", LIST)]).unwrap();
        let pinned = content.pinned(&[Digest::of(b"1"), Digest::of(b"2")]);
        let again = Content::parse(&pinned.context()).unwrap().0;
        let digests: Vec<_> = again.images().iter().map(|image| image.image.digest()).collect();
        assert_eq!(digests, [Some(Digest::of(b"1")), Some(Digest::of(b"2"))]);
        assert_ne!(content.text(), pinned.text());
    }

    #[test]
    fn many_are_named_briefly() {
        let list = |count: usize| {
            let entries = (0..count).map(|at| format!("{{image: r.io/a:{at}, at: '{at}'}}"));
            format!("[{}]", entries.collect::<Vec<_>>().join(", "))
        };
        let shown = |count| parse(&[("images", &list(count))]).unwrap().0.to_string();
        assert_eq!(shown(2), "2 images (r.io/a:0, r.io/a:1)");
        assert_eq!(shown(9), "9 images (r.io/a:0, r.io/a:1, r.io/a:2, …)");
    }

    #[test]
    fn a_list_stands_alone() {
        for also in ["image", "reference"] {
            let error = parse(&[("images", LIST), (also, "r.io/a:1")]).unwrap_err();
            assert!(matches!(error, AttributeError::ListAndImage), "{error}");
        }
        assert!(matches!(parse(&[("images", LIST), ("pth", "x")]), Err(AttributeError::Unknown(_))));
    }

    /// What a document says of volumes of this driver: attributes, or parameters of a class.
    fn contexts(value: &serde_json::Value, found: &mut Vec<HashMap<String, String>>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            if key == "volumeAttributes" || key == "parameters" {
                found.push(serde_json::from_value(value.clone()).unwrap());
            }
            contexts(value, found);
        }
        value.as_array().into_iter().flatten().for_each(|value| contexts(value, found));
    }

    #[test]
    fn the_examples_are_understood() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut found = Vec::new();
        for directory in [examples.clone(), examples.join("kserve")] {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "yaml") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
                    documents.iter().for_each(|document| contexts(document, &mut found));
                }
            }
        }
        let shown = |context| match Content::parse(context) {
            Ok((content, _)) => content.images().len(),
            // A class may leave it to its claims.
            Err(AttributeError::NoImage) => 0,
            Err(error) => panic!("{context:?}: {error}"),
        };
        let mut counts: Vec<usize> = found.iter().map(shown).collect();
        counts.sort_unstable();
        assert!(counts.ends_with(&[2, 2, 4]) && counts.len() > 5, "{counts:?}");
    }
}
