//! `store scrub`: reads all objects of the store again.

use std::sync::Arc;

use anyhow::bail;
use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use crate::app::engine::Engine;
use crate::app::scrub::Paced;
use crate::image::store::ScrubCursor;

#[derive(Serialize)]
struct Scrubbed {
    /// The round, with what was read of it before.
    #[serde(flatten)]
    round: ScrubCursor,
    /// Damaged objects that were found now.
    found: Vec<String>,
}

/// `store scrub`. `rate` is in MiB a second.
pub async fn scrub(engine: &Engine, rate: u64, output: Output) -> anyhow::Result<()> {
    let store = Arc::clone(&engine.store);
    let scrubbed = tokio::task::spawn_blocking(move || -> anyhow::Result<Scrubbed> {
        let mut found = Vec::new();
        let damaged = &mut |object| found.push(format!("{object}"));
        store.scrub(&mut Paced { rate: rate.saturating_mul(1 << 20), stop: &|| false, damaged })?;
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
            "{} damaged; `composefs-csi store why OBJECT` names their images; check the disk, then run `composefs-csi verify \
             --repair` and pull the images again",
            count(damaged, "object")
        ),
    }
}
