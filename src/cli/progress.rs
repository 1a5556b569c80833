//! Shows the progress of pulls: a bar per layer on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    let last = all.add(spinner());
    loop {
        for (bar, layer) in bars.iter().zip(&progress.layers) {
            let done = layer.done();
            bar.set_position(done);
            bar.set_message(message(layer.state(), done == layer.size, layer.rate()));
        }
        last.set_message(match progress.phase().after_fetching() {
            Some(doing) => doing.to_owned(),
            None => {
                let (done, total) = (bytes(progress.done()), bytes(progress.total()));
                format!("{done} of {total}{}", progress.pace())
            }
        });
        last.tick();
        tokio::time::sleep(REDRAW).await;
    }
}

/// What a layer is doing. `complete` says whether all its bytes are here.
pub(super) fn message(state: LayerState, complete: bool, rate: u64) -> String {
    match state {
        LayerState::Waiting => "waiting".to_owned(),
        // The last of its bytes are being unpacked.
        LayerState::Fetching | LayerState::Aside if complete => "unpacking".to_owned(),
        LayerState::Fetching => format!("{}/s", bytes(rate)),
        LayerState::Aside => format!("{}/s, aside", bytes(rate)),
        LayerState::Done => "done".to_owned(),
        LayerState::Reused => "already here".to_owned(),
        LayerState::LeftOut => "left out".to_owned(),
    }
}

pub(super) fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        // The bar takes what the terminal has left.
        "{prefix} {wide_bar} {decimal_bytes:>9}/{decimal_total_bytes:<9} {msg:<12}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line with seconds, for the whole, and for what has no end that could be seen coming.
pub(super) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

async fn lines(progress: &Progress) {
    loop {
        tokio::time::sleep(LINE).await;
        tracing::info!(
            target: "composefs_csi::progress",
            "pulling {}: {progress}",
            progress.manifest.short(),
        );
    }
}

/// A line of a screen that is drawn again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Row {
    /// Words.
    Text(String),
    /// A layer, with a bar.
    Layer {
        /// Its short digest.
        name: String,
        /// Bytes that are here.
        done: u64,
        /// All its bytes.
        total: u64,
        /// What it is doing.
        message: String,
    },
}

impl Row {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// The line without a bar.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Layer { name, done, total, message } => {
                format!("    {name}  {} of {}  {message}", bytes(*done), bytes(*total))
            }
        }
    }
}

/// A screen on standard output that is drawn again and again.
pub(super) struct Screen {
    all: MultiProgress,
    bars: Vec<(bool, ProgressBar)>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Self { all, bars: Vec::new() }
    }

    /// Shows these lines in the place of the last.
    pub(super) fn show(&mut self, rows: Vec<Row>) {
        let is_bar = |row: &Row| matches!(row, Row::Layer { .. });
        // Lines of the same kinds are drawn in place.
        if self.bars.len() != rows.len()
            || self.bars.iter().zip(&rows).any(|((was_bar, _), row)| *was_bar != is_bar(row))
        {
            for (_, bar) in self.bars.drain(..) {
                self.all.remove(&bar);
            }
            self.bars = rows.iter().map(|row| (is_bar(row), self.all.add(blank(is_bar(row))))).collect();
        }
        for ((_, bar), row) in self.bars.iter().zip(rows) {
            match row {
                Row::Text(text) => bar.set_message(text),
                Row::Layer { name, done, total, message } => {
                    bar.set_prefix(format!("    {name}"));
                    bar.set_length(total);
                    bar.set_position(done);
                    bar.set_message(message);
                }
            }
            bar.tick();
        }
    }
}

fn blank(is_bar: bool) -> ProgressBar {
    if is_bar {
        return ProgressBar::no_length().with_style(style());
    }
    let words = ProgressStyle::with_template("{wide_msg}");
    ProgressBar::no_length().with_style(words.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
