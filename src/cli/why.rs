//! `store why`: what keeps an image or an object, and where images show it.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes};
use super::pins::left;
use super::store::{age, name, since, span};
use super::stored::{self, Stored, StoredError};
use crate::app::engine::Engine;
use crate::image::store::{Explained, Shown, Why};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;
use crate::text;

/// The most paths of one object in one image that are listed.
const PATHS_MAX: usize = 100;

/// One image that has what was asked for.
#[derive(Debug, Serialize)]
struct Holder {
    image: String,
    key: Digest,
    /// What keeps the image; empty if nothing does.
    kept: Vec<Why>,
    /// Seconds since 1970.
    last_used: u64,
    /// Bytes that its removal frees, when those that were used less recently have gone; zero of those that are kept.
    frees_bytes: u64,
    /// Where it shows it: of an object or a path that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    /// What it shows there.
    #[serde(flatten)]
    shows: Option<Shown>,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    /// What was asked about, in full.
    about: String,
    images: Vec<Holder>,
}

/// What is asked about.
enum Subject {
    /// Images of these keys.
    Image(Digest),
    Object(VerityDigest),
    /// A path in images, without its leading slash.
    Path(String),
}

/// `store why WHAT`.
pub async fn why(engine: &Engine, what: &str, output: Output) -> anyhow::Result<()> {
    let subject = subject(engine, what, output).await?;
    let mounted = || engine.mounted_images().map_err(|error| error.to_string());
    let explained = engine.store.explain(&mounted)?;
    let answer = match &subject {
        Subject::Image(key) => Answer {
            about: format!("image {key}"),
            images: explained
                .iter()
                .filter(|image| image.record.key() == *key)
                .map(|image| holder(image, Vec::new(), None))
                .collect(),
        },
        Subject::Object(object) => of_object(engine, object, &explained)?,
        Subject::Path(path) => of_path(engine, path, &explained)?,
    };
    output::show(output, &answer, Answer::text)
}

/// An image by reference or digest; an object by its digest or its file; a path in images.
async fn subject(engine: &Engine, what: &str, output: Output) -> anyhow::Result<Subject> {
    let objects = engine.store.objects();
    if let Some(path) = what.strip_prefix('/') {
        let digits: String = match Path::new(what).strip_prefix(engine.store.root().join("objects")) {
            Ok(below) => below.to_string_lossy().chars().filter(|c| *c != '/').collect(),
            Err(_) => return Ok(Subject::Path(path.trim_end_matches('/').to_owned())),
        };
        let found = VerityDigest::from_hex(&digits);
        return found
            .map(Subject::Object)
            .ok_or_else(|| anyhow::anyhow!("{what} is not the file of an object"));
    }
    let Some(digits) = stored::digits(what) else {
        let ready = Stored::parse(what, None)?.find(engine, output).await?;
        return Ok(Subject::Image(ready.record.key()));
    };
    match Stored::parse(what, None)?.find(engine, output).await {
        Ok(ready) => Ok(Subject::Image(ready.record.key())),
        Err(error) => match objects.with_first_digits(&digits)?.as_slice() {
            [one] => Ok(Subject::Object(*one)),
            [] if is_nobody(&error) => anyhow::bail!(
                "no image and no object in the store has a digest that begins with {digits}; `composefs-csi ls` lists the images"
            ),
            // Several images, or records that cannot be read.
            [] => Err(error),
            several => anyhow::bail!(
                "{} objects have a digest that begins with {digits}; give more digits",
                several.len()
            ),
        },
    }
}

fn is_nobody(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(StoredError::Nobody(_)))
}

fn of_object(engine: &Engine, object: &VerityDigest, explained: &[Explained]) -> anyhow::Result<Answer> {
    let mut images = Vec::new();
    let by_key: HashMap<Digest, &Explained> =
        explained.iter().map(|image| (image.record.key(), image)).collect();
    for record in engine.store.owners(object)? {
        let Some(image) = by_key.get(&record.key()) else { continue };
        let paths = engine.store.paths_of(&record, object, PATHS_MAX)?;
        let paths = paths.iter().map(|path| shown(path)).collect();
        let is_image = record.images().any(|own| own.image == *object);
        let shows =
            is_image.then_some(Shown { shows: "composefs image", object: None, bytes: record.image_size });
        images.push(holder(image, paths, shows));
    }
    Ok(Answer { about: format!("object {object}"), images })
}

fn of_path(engine: &Engine, path: &str, explained: &[Explained]) -> anyhow::Result<Answer> {
    let mut images = Vec::new();
    for image in explained {
        match engine.store.shown_at(&image.record, path.as_bytes()) {
            Ok(None) => {}
            Ok(shown) => images.push(holder(image, vec![text::one_line(&format!("/{path}"))], shown)),
            // Removed since it was listed, or damaged: the others are still of interest.
            Err(error) => {
                tracing::warn!(image.digest = %image.record.key(), %error, "an image cannot be looked into");
            }
        }
    }
    anyhow::ensure!(!images.is_empty(), "no image in the store has /{path}");
    Ok(Answer { about: format!("path /{path}"), images })
}

fn holder(image: &Explained, paths: Vec<String>, shows: Option<Shown>) -> Holder {
    Holder {
        image: name(&image.record),
        key: image.record.key(),
        kept: image.kept.clone(),
        last_used: image.last_used.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        frees_bytes: image.frees,
        paths,
        shows,
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", text::one_line(&String::from_utf8_lossy(path)))
}

/// Why an image stays, in a few words.
pub(super) fn reason(why: &Why) -> String {
    match why {
        Why::Mount => "it is mounted".to_owned(),
        Why::Volume { id } if id.is_empty() => "a volume shows it".to_owned(),
        Why::Volume { id } => format!("volume {}", text::one_line(id)),
        Why::Hold => "a pull or publish is under way".to_owned(),
        Why::Pin(note) => {
            let until = note.until.map_or_else(String::new, |until| format!(" for {}", span(left(until))));
            let reason = note
                .reason
                .as_deref()
                .map_or_else(String::new, |reason| format!(": {}", text::one_line(reason)));
            format!("pinned{until}{reason}")
        }
        Why::Prefetch { owner } => format!("prefetch {owner}"),
    }
}

impl Answer {
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.about);
        if self.images.is_empty() {
            text.push_str(
                "  no image in the store has it: a pull that is under way brings it, a mount without a record reads it, or the \
                 next collection that looks at all objects removes it\n",
            );
        }
        for image in &self.images {
            text.push_str(&format!("  image      {} ({})\n", image.image, image.key.short()));
            if let Some(Shown { shows, object, bytes: size }) = &image.shows {
                let object =
                    object.as_deref().map_or_else(String::new, |object| format!(", object {object}"));
                text.push_str(&format!("    shows    {shows} of {}{object}\n", bytes(*size)));
            }
            for path in &image.paths {
                text.push_str(&format!("    at       {path}\n"));
            }
            for why in &image.kept {
                text.push_str(&format!("    kept by  {}\n", reason(why)));
            }
            if image.kept.is_empty() {
                text.push_str(&format!(
                    "    kept by  nothing; last used {}, its removal frees {}\n",
                    age(since(image.last_used)),
                    bytes(image.frees_bytes)
                ));
            }
        }
        text
    }
}
