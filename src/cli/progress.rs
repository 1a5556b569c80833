//! Shows the progress of a pull: a bar per layer on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::args::Output;
use super::output::bytes;
use crate::pull::{LayerState, Progress, Watch};

/// How often a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a line is written without a terminal.
const LINE: Duration = Duration::from_secs(5);

/// Shows the pull that `watch` joins until the returned future is dropped. Progress goes to
/// standard error, so that results can be piped.
pub async fn show(watch: Watch, output: Output) {
    // Before the manifest is read, the layers are not known.
    let progress = loop {
        if let Some(progress) = watch.get() {
            break Arc::clone(progress);
        }
        tokio::time::sleep(REDRAW).await;
    };
    if output == Output::Text && std::io::stderr().is_terminal() {
        bars(&progress).await;
    } else {
        lines(&progress).await;
    }
}

async fn bars(progress: &Progress) {
    let all = MultiProgress::new();
    let bars: Vec<ProgressBar> = progress
        .layers
        .iter()
        .map(|layer| {
            let bar = all.add(ProgressBar::new(layer.size));
            bar.set_style(style());
            bar.set_prefix(layer.blob.short());
            bar
        })
        .collect();
    let mut last = None;
    loop {
        for (bar, layer) in bars.iter().zip(&progress.layers) {
            bar.set_position(layer.done());
            bar.set_message(match layer.state() {
                LayerState::Waiting => "waiting".to_owned(),
                // All bytes are here; the last of them are being unpacked.
                LayerState::Fetching | LayerState::Aside if layer.done() == layer.size => {
                    "unpacking".to_owned()
                }
                LayerState::Fetching | LayerState::Aside => format!("{}/s", bytes(bar.per_sec() as u64)),
                LayerState::Done => "done".to_owned(),
                LayerState::Reused => "already here".to_owned(),
            });
        }
        if let Some(doing) = progress.phase().after_fetching() {
            let line = last.get_or_insert_with(|| all.add(spinner()));
            line.set_message(doing);
            line.tick();
        }
        tokio::time::sleep(REDRAW).await;
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        // The bar takes what the terminal has left.
        "{prefix} {wide_bar} {decimal_bytes:>9}/{decimal_total_bytes:<9} {msg:<12}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line with seconds, for what has no end that could be seen coming.
fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

async fn lines(progress: &Progress) {
    let started = Instant::now();
    loop {
        tokio::time::sleep(LINE).await;
        let fetched: u64 = progress.layers.iter().map(|layer| layer.fetched()).sum();
        let rate = fetched as f64 / started.elapsed().as_secs_f64();
        tracing::info!(
            target: "composefs_csi::progress",
            "pulling {}: {progress}, {}/s",
            progress.manifest.short(),
            bytes(rate as u64)
        );
    }
}
