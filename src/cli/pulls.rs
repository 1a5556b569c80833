//! Commands about the pulls of the running node plugin, `pulls` and `pulls cancel`, and how pulls look in these and in
//! `status`.

use std::path::Path;
use std::time::Duration;

use super::args::Output;
use super::output::{self, bytes, count, wrapped};
use super::progress::{self, Row};
use crate::app::plugin_socket;
use crate::pull::{LayerState, LayerUnderWay, Phase, PullUnderWay, Waiter};
use crate::text;
use crate::units;

/// What is said where nothing is pulled.
pub(super) const NONE: &str = "no image is being pulled";
/// Layers of one pull that are shown one by one.
const LAYERS_SHOWN: usize = 8;
/// Waiters of one pull that are shown.
const WAITERS_SHOWN: usize = 4;

/// `pulls`.
pub async fn list(state_dir: &Path, output: Output) -> anyhow::Result<()> {
    let pulls = plugin_socket::pulls(state_dir).await?;
    output::show(output, &pulls, |pulls| blocks(pulls, output::width().unwrap_or(usize::MAX)))
}

/// `pulls cancel IMAGE`.
pub async fn cancel(state_dir: &Path, image: &str, output: Output) -> anyhow::Result<()> {
    let ended = plugin_socket::cancel(state_dir, image).await?;
    anyhow::ensure!(
        !ended.is_empty(),
        "no image {image} is being pulled; `composefs-csi pulls` lists what is"
    );
    output::show(output, &ended, |ended| {
        let line = |pull: &PullUnderWay| format!("ended the pull of {} ({})\n", pull.image, pull.digest);
        ended.iter().map(line).collect()
    })
}

/// Some lines for each pull.
pub(super) fn blocks(pulls: &[PullUnderWay], width: usize) -> String {
    if pulls.is_empty() {
        return NONE.to_owned();
    }
    let mut rows = Vec::new();
    rows_of(pulls, width, &mut rows);
    rows.into_iter().map(|row| row.plain() + "\n").collect()
}

/// The same for a screen, with bars.
pub(super) fn rows(pulls: &[PullUnderWay], width: usize, rows: &mut Vec<Row>) {
    if pulls.is_empty() {
        rows.push(Row::text(NONE));
    } else {
        rows_of(pulls, width, rows);
    }
}

/// One line for a pull.
pub(super) fn line(pull: &PullUnderWay) -> String {
    format!("{}: {}; {}", pull.image, doing(pull), waiting(pull))
}

fn rows_of(pulls: &[PullUnderWay], width: usize, rows: &mut Vec<Row>) {
    for (number, pull) in pulls.iter().enumerate() {
        if number > 0 {
            rows.push(Row::text(""));
        }
        rows.push(Row::text(&pull.image));
        rows.push(Row::text(&format!("  {}", pull.digest)));
        for text in &[doing(pull), layers(pull), waiting(pull)] {
            let text = wrapped(text, width.saturating_sub(2), "  ");
            rows.extend(text.lines().enumerate().map(|(line, text)| {
                Row::text(&if line == 0 { format!("  {text}") } else { text.to_owned() })
            }));
        }
        let moving = |layer: &&LayerUnderWay| matches!(layer.state, LayerState::Fetching | LayerState::Aside);
        rows.extend(pull.layers.iter().filter(moving).take(LAYERS_SHOWN).map(row));
    }
}

fn row(layer: &LayerUnderWay) -> Row {
    Row::Layer {
        name: layer.blob.short(),
        done: layer.done_bytes,
        total: layer.total_bytes,
        message: progress::message(
            layer.state,
            layer.done_bytes == layer.total_bytes,
            layer.bytes_per_second,
        ),
    }
}

/// What it is doing, and how far it is.
fn doing(pull: &PullUnderWay) -> String {
    let phase = match pull.phase {
        Phase::Fetching => "fetching",
        // Nothing else is told of an image that is built of layers that are here.
        Phase::Waiting if pull.layers.is_empty() => {
            return "building another image of the same layers".to_owned();
        }
        phase => return phase.after_fetching().unwrap_or_default().to_owned(),
    };
    let mut text = format!("{phase}, {} of {}", bytes(pull.done_bytes), bytes(pull.total_bytes));
    match (pull.seconds_silent, pull.seconds_left) {
        (Some(silent), _) => {
            let silent = units::time(Duration::from_secs(silent));
            text.push_str(&format!(", NOTHING received for {silent}"));
        }
        (None, left) => {
            text.push_str(&format!(", {}/s", bytes(pull.bytes_per_second)));
            let left = left.map(|left| units::about(Duration::from_secs(left)));
            text.extend(left.map(|left| format!(", about {left} left")));
        }
    }
    text
}

/// How old it is, and how many of its layers stand where.
fn layers(pull: &PullUnderWay) -> String {
    let names = [
        (LayerState::Reused, "here before"),
        (LayerState::Done, "done"),
        (LayerState::Fetching, "fetching"),
        (LayerState::Aside, "aside"),
        (LayerState::Waiting, "waiting"),
    ];
    let counts = names.map(|(state, name)| {
        let count = pull.layers.iter().filter(|layer| layer.state == state).count();
        (count > 0).then(|| format!("{count} {name}"))
    });
    let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let age = units::time(Duration::from_secs(pull.seconds));
    if counts.is_empty() {
        return format!("begun {age} ago");
    }
    format!("begun {age} ago; {}: {counts}", count(pull.layers.len() as u64, "layer"))
}

/// Who waits for it.
fn waiting(pull: &PullUnderWay) -> String {
    if pull.waiting == 0 {
        return "no call waits for it".to_owned();
    }
    let calls = match pull.waiting {
        1 => "1 call waits".to_owned(),
        more => format!("{more} calls wait"),
    };
    let names: Vec<String> = pull.waiters.iter().take(WAITERS_SHOWN).map(name).collect();
    let more = pull.waiters.len() - names.len();
    match (names.is_empty(), more) {
        (true, _) => calls,
        (false, 0) => format!("{calls}, for {}", names.join(", ")),
        (false, more) => format!("{calls}, for {} and {more} more", names.join(", ")),
    }
}

fn name(waiter: &Waiter) -> String {
    // Names of pods come from the API server, ids of volumes from whoever made them.
    let name = if waiter.pod.is_empty() { format!("volume {}", waiter.volume) } else { waiter.pod.clone() };
    text::one_line(&name)
}

#[cfg(test)]
mod tests;
