//! `store scrub`: reads all objects of the store again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::bail;
use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use crate::app::engine::Engine;
use crate::app::scrub::Paced;
use crate::image::store::{ScrubCursor, Store};
use crate::image::verity::VerityDigest;

#[derive(Serialize)]
struct Scrubbed {
    /// The round, with what was read of it before.
    #[serde(flatten)]
    round: ScrubCursor,
    /// Damaged objects that were found now.
    found: Vec<String>,
}

/// Puts the images that have them into quarantine; a running plugin fetches them again.
fn mark(store: &Store, objects: &BTreeSet<VerityDigest>) -> anyhow::Result<()> {
    let mut damaged = BTreeMap::new();
    for object in objects {
        // One that was repaired meanwhile is none of them.
        damaged.extend(store.examine_object(object)?.map(|damage| (*object, damage)));
    }
    if !damaged.is_empty() {
        store.mark_damaged(&damaged)?;
    }
    Ok(())
}

/// `store scrub`. `rate` is in MiB a second.
pub async fn scrub(engine: &Engine, rate: u64, output: Output) -> anyhow::Result<()> {
    let store = Arc::clone(&engine.store);
    let scrubbed = tokio::task::spawn_blocking(move || -> anyhow::Result<Scrubbed> {
        let mut objects = BTreeSet::new();
        let damaged = &mut |object| {
            objects.insert(object);
        };
        store.scrub(&mut Paced { rate: rate.saturating_mul(1 << 20), stop: &|| false, damaged })?;
        mark(&store, &objects)?;
        let found = objects.iter().map(VerityDigest::hex).collect();
        Ok(Scrubbed { round: store.scrub_cursor()?, found })
    });
    let scrubbed = scrubbed.await??;
    output::show(output, &scrubbed, |scrubbed| {
        let damaged: String =
            scrubbed.found.iter().map(|object| format!("object {object} is damaged\n")).collect();
        let round = &scrubbed.round;
        format!(
            "{damaged}{}, {} read in this round, {} damaged\n",
            count(round.objects, "object"),
            bytes(round.bytes),
            round.damaged
        )
    })?;
    match scrubbed.found.len() as u64 {
        0 => Ok(()),
        damaged => bail!(
            "{} damaged; `composefs-csi store why OBJECT` names their images; check the disk, then run `composefs-csi store \
             repair`",
            count(damaged, "object")
        ),
    }
}
