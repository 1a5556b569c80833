//! `verify`: reads every object of the images in the store, and lists damaged ones.

use std::collections::BTreeSet;

use anyhow::bail;
use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use super::stored::Stored;
use crate::app::engine::Engine;
use crate::image::store::ImageRecord;
use crate::oci::digest::Digest;

#[derive(Debug, Serialize)]
struct Report {
    images: usize,
    objects: usize,
    bytes: u64,
    damaged: Vec<Row>,
    /// Images whose records and damaged objects were removed. They have to be pulled again.
    to_pull: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    object: String,
    path: String,
    damage: String,
    /// References of the images that use it.
    images: Vec<String>,
}

/// `verify [IMAGE] [--repair]`.
pub async fn verify(
    engine: &Engine,
    stored: Option<Stored>,
    repair: bool,
    output: Output,
) -> anyhow::Result<()> {
    let records = match stored {
        Some(stored) => vec![stored.find(engine, output).await?.record],
        None => all(engine)?,
    };
    let store = std::sync::Arc::clone(&engine.store);
    let report = tokio::task::spawn_blocking(move || -> anyhow::Result<Report> {
        let found = store.examine(&records)?;
        let name = |manifest: &Digest| {
            let record = records.iter().find(|record| record.key() == *manifest);
            record.and_then(|record| record.names.first().cloned()).unwrap_or_else(|| manifest.to_string())
        };
        let damaged = found.damaged.iter().map(|(object, (damage, manifests))| Row {
            object: object.to_string(),
            path: store.objects().path(object).display().to_string(),
            damage: damage.to_string(),
            images: manifests.iter().map(name).collect(),
        });
        let damaged: Vec<Row> = damaged.collect();
        let corrupt: BTreeSet<_> = found.damaged.keys().copied().collect();
        let to_pull =
            if repair && !corrupt.is_empty() { store.remove_damaged(&corrupt)? } else { Vec::new() };
        let to_pull = to_pull.iter().map(|record| name(&record.key())).collect();
        Ok(Report { images: records.len(), objects: found.objects, bytes: found.bytes, damaged, to_pull })
    })
    .await??;
    output::show(output, &report, Report::text)?;
    match report.damaged.len() as u64 {
        0 => Ok(()),
        damaged if repair => {
            let removed = count(damaged, "damaged object");
            bail!("{removed} removed; pull the images named above again to put back what was lost")
        }
        damaged => bail!(
            "{} damaged; check the disk, then run `composefs-csi store repair`",
            count(damaged, "object")
        ),
    }
}

/// `verify --enable-verity`.
pub async fn enable_verity(engine: &Engine) -> anyhow::Result<()> {
    let store = std::sync::Arc::clone(&engine.store);
    let complete = tokio::task::spawn_blocking(move || store.enable_verity(|_| true)).await??;
    anyhow::ensure!(
        complete,
        "objects are being written without fs-verity by another process; run this again"
    );
    Ok(())
}

fn all(engine: &Engine) -> anyhow::Result<Vec<ImageRecord>> {
    let listed = engine.store.images().list()?;
    // An image without a readable record cannot be checked, so the command must not report success.
    if let Some(unreadable) = listed.unreadable.into_iter().next() {
        return Err(unreadable.into());
    }
    Ok(listed.images.into_iter().map(|image| image.record).collect())
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.damaged {
            text.push_str(&format!("object {} {} (of {})\n", row.object, row.damage, row.images.join(", ")));
        }
        for image in &self.to_pull {
            text.push_str(&format!("pull again: {image}\n"));
        }
        text.push_str(&format!(
            "{}, {}, {} read, {} damaged\n",
            count(self.images as u64, "image"),
            count(self.objects as u64, "object"),
            bytes(self.bytes),
            self.damaged.len()
        ));
        text
    }
}
