//! `pin`, `unpin` and `pins`: images that the operator keeps, why and how long.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::args::Output;
use super::output;
use super::store::{age, since, span};
use super::stored::Stored;
use crate::app::engine::Engine;
use crate::image::store::{Pin, PinNote, REASON_MAX};
use crate::oci::digest::Digest;
use crate::text;

/// Why and how long an image is to be kept.
pub struct Wish {
    pub reason: Option<String>,
    pub time: Option<Duration>,
}

impl Wish {
    fn note(self) -> anyhow::Result<PinNote> {
        if let Some(reason) = &self.reason {
            anyhow::ensure!(
                !reason.trim().is_empty() && reason.len() <= REASON_MAX,
                "--reason has {} bytes; write 1 to {REASON_MAX}",
                reason.len()
            );
        }
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let until = self.time.map(|time| now.saturating_add(time).as_secs());
        Ok(PinNote { reason: self.reason, since: Some(now.as_secs()), until })
    }
}

#[derive(Serialize)]
struct Pinned {
    manifest: Digest,
    pinned: bool,
    #[serde(flatten)]
    note: PinNote,
}

/// `pin IMAGE`.
pub async fn pin(engine: &Engine, stored: Stored, wish: Wish, output: Output) -> anyhow::Result<()> {
    let note = wish.note()?;
    let ready = stored.find(engine, output).await?;
    let manifest = ready.record.key();
    engine.store.pin(&manifest, &note)?;
    output::show(output, &Pinned { manifest, pinned: true, note }, |pin| {
        let until = pin.note.until.map_or_else(String::new, |until| format!(" for {}", span(left(until))));
        format!("{} is pinned{until}", pin.manifest)
    })
}

/// `unpin IMAGE`.
pub async fn unpin(engine: &Engine, stored: Stored, output: Output) -> anyhow::Result<()> {
    let manifest = stored.find_pinned(engine, output).await?;
    engine.store.pins().remove(&manifest)?;
    let pinned = Pinned { manifest, pinned: false, note: PinNote::default() };
    output::show(output, &pinned, |pin| format!("{} is no longer pinned", pin.manifest))
}

/// `pins`.
pub fn list(engine: &Engine, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Row {
        #[serde(flatten)]
        pin: Pin,
        /// What the image is called; empty where damage has made its record go, and the pin waits for the image.
        names: Vec<String>,
    }
    let row = |pin: Pin| {
        let record = engine.store.images().get(&pin.image)?;
        Ok::<_, anyhow::Error>(Row { pin, names: record.map(|record| record.names).unwrap_or_default() })
    };
    let rows = engine.store.pins().list_all()?.into_iter().map(row).collect::<Result<Vec<_>, _>>()?;
    output::show(output, &rows, |rows| {
        let mut table = vec![["IMAGE", "MANIFEST", "SINCE", "ENDS", "REASON"].map(String::from).to_vec()];
        table.extend(rows.iter().map(|row| {
            let note = &row.pin.note;
            vec![
                row.names.first().cloned().unwrap_or_else(|| "(not in the store)".to_owned()),
                row.pin.image.short(),
                note.since.map_or_else(String::new, |moment| age(since(moment))),
                ends(&row.pin),
                note.reason.as_deref().map(text::one_line).unwrap_or_default(),
            ]
        }));
        output::table(&table, &[], output::width())
    })
}

fn ends(pin: &Pin) -> String {
    match pin.note.until {
        None => "never".to_owned(),
        Some(until) if pin.ended => format!("ended {}", age(since(until))),
        Some(until) => format!("in {}", span(left(until))),
    }
}

/// How long it is until the moment that lies so many seconds after 1970.
pub(super) fn left(until: u64) -> Duration {
    Duration::from_secs(until).saturating_sub(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_some_words() {
        for reason in [String::new(), " ".to_owned(), "x".repeat(REASON_MAX + 1)] {
            assert!(Wish { reason: Some(reason), time: None }.note().is_err());
        }
        let note = Wish { reason: None, time: Some(Duration::MAX) }.note().unwrap();
        assert!(note.until.is_some());
    }
}
