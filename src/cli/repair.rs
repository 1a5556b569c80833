//! `store repair`: fetches what is damaged again from where it came, and puts it in its place under running mounts.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::bail;
use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use super::stored::Stored;
use crate::app::engine::Engine;
use crate::image::store::{DamageMark, ImageRecord, Store};
use crate::node::mount;
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;
use crate::oci::reference::Reference;
use crate::pull::{Caller, ImageRequest, Images as _, PullPolicy, Watch};

#[derive(Debug, Default, Serialize)]
struct Repaired {
    /// Objects that were read.
    objects: usize,
    bytes: u64,
    /// What was damaged, by this reading or an earlier one.
    damaged: Vec<DamageMark>,
    /// The images that are whole again.
    repaired: Vec<String>,
    /// Those that are not, and why.
    quarantined: Vec<Left>,
}

#[derive(Debug, Serialize)]
struct Left {
    image: String,
    why: String,
}

/// `store repair [IMAGE]`.
pub async fn repair(engine: &Engine, stored: Option<Stored>, output: Output) -> anyhow::Result<()> {
    // Held until the end.
    let only = match stored {
        Some(stored) => Some(stored.find(engine, output).await?),
        None => None,
    };
    let only_key = only.as_ref().map(|ready| ready.record.key());
    let records = match &only {
        Some(ready) => vec![ready.record.clone()],
        None => all(&engine.store)?,
    };
    let store = Arc::clone(&engine.store);
    let examined = tokio::task::spawn_blocking(move || -> anyhow::Result<Repaired> {
        let found = store.examine(&records)?;
        let damaged = found.damaged.into_iter().map(|(object, (damage, _))| (object, damage)).collect();
        store.mark_damaged(&damaged)?;
        let (objects, bytes, damaged) = (found.objects, found.bytes, store.damaged()?);
        Ok(Repaired { objects, bytes, damaged, ..Repaired::default() })
    });
    let mut report = examined.await??;
    let images: BTreeSet<Digest> =
        report.damaged.iter().flat_map(|mark| mark.images.iter().copied()).collect();
    for key in images.into_iter().filter(|key| only_key.is_none_or(|only| only == *key)) {
        // One that has gone meanwhile is nobody's loss.
        let Some(record) = engine.store.images().get(&key)? else { continue };
        let image = super::store::name(&record);
        // With an image before it, what they share has come.
        match fetch_again(engine, &record).await {
            Ok(()) => report.repaired.push(image),
            Err(error) => report.quarantined.push(Left { image, why: format!("{error:#}") }),
        }
    }
    let store = Arc::clone(&engine.store);
    let settled = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        store.recheck_damaged()?;
        if let Some(healed) = store.healed()? {
            mount::refresh(store.root(), &healed.images)?;
        }
        Ok(())
    });
    settled.await??;
    output::show(output, &report, Repaired::text)?;
    match report.quarantined.len() as u64 {
        0 => Ok(()),
        left => bail!("{} could not be fetched again and stay in quarantine", count(left, "image")),
    }
}

fn all(store: &Store) -> anyhow::Result<Vec<ImageRecord>> {
    let listed = store.images().list()?;
    for unreadable in &listed.unreadable {
        tracing::warn!(error = %unreadable, "an image record cannot be read; `composefs-csi store fsck` says more");
    }
    Ok(listed.images.into_iter().map(|image| image.record).collect())
}

/// Fetches an image again by one of the names that it was pulled by.
async fn fetch_again(engine: &Engine, record: &ImageRecord) -> anyhow::Result<()> {
    if record.is_combined() {
        let whole = engine.store.quarantine_of(&record.key())?.is_none();
        anyhow::ensure!(
            whole,
            "it is made of several images; it is made again with the next publish of a volume that shows it"
        );
        return Ok(());
    }
    let platform = record.platform.as_deref().and_then(|platform| platform.parse().ok());
    let mut failed = None;
    for name in &record.names {
        let reference = match name.parse()? {
            // The tag may have gone or moved on.
            remote @ Reference::Registry(_) => remote.pinned(record.manifest),
            layout @ Reference::Layout(_) => layout,
        };
        let request = ImageRequest {
            reference,
            choice: record.choice.clone(),
            policy: PullPolicy::IfNotPresent,
            platform: platform.clone().unwrap_or_else(Platform::host),
            caller: Caller::Operator,
            pinned: Some(record.manifest),
            noexec: false,
            credentials: Credentials::none(),
            watch: Watch::default(),
        };
        match engine.images.ensure(&request).await {
            Ok(_) => return Ok(()),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => bail!("its record does not say where it came from; pull it again by its name"),
    }
}

impl Repaired {
    fn text(&self) -> String {
        let mut text: String =
            self.damaged.iter().map(|mark| format!("object {} {}\n", mark.object, mark.damage)).collect();
        for image in &self.repaired {
            text.push_str(&format!("whole again: {image}\n"));
        }
        for left in &self.quarantined {
            text.push_str(&format!("in quarantine: {}\n      {}\n", left.image, left.why));
        }
        let (objects, damaged) = (count(self.objects as u64, "object"), self.damaged.len());
        text.push_str(&format!(
            "{objects}, {} read, {damaged} damaged; {} whole again, {} in quarantine\n",
            bytes(self.bytes),
            count(self.repaired.len() as u64, "image"),
            self.quarantined.len()
        ));
        text
    }
}
