//! `status`: the running node plugin on one screen, once or again and again.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use super::args::Output;
use super::output::{self, bytes, count};
use super::{progress, pulls};
use crate::app::plugin_socket;
use crate::app::status::{NodeStatus, Room};
use crate::units;

/// How often a terminal is drawn anew.
const REDRAW: Duration = Duration::from_secs(1);
/// Columns before the text of a field.
const MARGIN: usize = 10;
/// How often lines are written without one.
const LINES: Duration = Duration::from_secs(5);

/// `status`.
pub async fn show(state_dir: &Path, output: Output) -> anyhow::Result<()> {
    let status = plugin_socket::status(state_dir).await?;
    output::show(output, &status, |status| {
        let width = output::width().unwrap_or(usize::MAX);
        let pulls = pulls::blocks(&status.pulls, width);
        format!("{}\n{pulls}", head(status, width))
    })
}

/// `status --watch`: until it is interrupted, or nobody reads any more.
///
/// # Errors
/// No plugin runs at the beginning. One that is gone later is waited for.
pub async fn watch(state_dir: &Path, output: Output) -> anyhow::Result<()> {
    let first = plugin_socket::status(state_dir).await?;
    match output {
        Output::Json => documents(state_dir, first).await,
        Output::Text if std::io::stdout().is_terminal() => draw(state_dir, first).await,
        Output::Text => lines(state_dir, first).await,
    }
}

/// One JSON document on a line each time.
async fn documents(state_dir: &Path, first: NodeStatus) -> anyhow::Result<()> {
    let mut next: anyhow::Result<NodeStatus> = Ok(first);
    loop {
        if let Ok(status) = &next
            && !write_line(&serde_json::to_string(status)?)?
        {
            return Ok(());
        }
        tokio::time::sleep(LINES).await;
        next = plugin_socket::status(state_dir).await;
    }
}

/// A line for each pull each time, and one when there is none any more.
async fn lines(state_dir: &Path, first: NodeStatus) -> anyhow::Result<()> {
    let mut next: anyhow::Result<NodeStatus> = Ok(first);
    let mut before = Vec::new();
    loop {
        let now = match &next {
            Ok(status) if status.pulls.is_empty() => vec![pulls::NONE.to_owned()],
            Ok(status) => status.pulls.iter().map(pulls::line).collect(),
            Err(error) => vec![error.to_string()],
        };
        // What stays as it is is said once.
        if now != before {
            for line in &now {
                if !write_line(line)? {
                    return Ok(());
                }
            }
        }
        before = now;
        tokio::time::sleep(LINES).await;
        next = plugin_socket::status(state_dir).await;
    }
}

/// Bars, as `pull` draws them.
async fn draw(state_dir: &Path, first: NodeStatus) -> anyhow::Result<()> {
    let mut next: anyhow::Result<NodeStatus> = Ok(first);
    let mut screen = progress::Screen::new();
    loop {
        let mut rows = Vec::new();
        match &next {
            Ok(status) => {
                let width = output::width().unwrap_or(80);
                rows.extend(head(status, width).lines().map(progress::Row::text));
                rows.push(progress::Row::text(""));
                pulls::rows(&status.pulls, width, &mut rows);
            }
            Err(error) => rows.push(progress::Row::text(&error.to_string())),
        }
        screen.show(rows);
        tokio::time::sleep(REDRAW).await;
        next = plugin_socket::status(state_dir).await;
    }
}

/// Writes a line to standard output; false if its reader has gone.
fn write_line(line: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) => output::unless_closed(error).map(|()| false),
    }
}

/// All but the pulls, in lines of at most so many columns.
fn head(status: &NodeStatus, width: usize) -> String {
    let ready = match &status.not_ready {
        None => "ready".to_owned(),
        Some(why) => format!("NOT ready: {why}"),
    };
    let title = format!("{}: {ready}", status.node);
    let lines = fields(status).into_iter().flat_map(|(name, text)| {
        let wrapped = output::wrapped(&text, width.saturating_sub(MARGIN), "");
        let indented = wrapped.lines().enumerate().map(|(line, text)| {
            let name = if line == 0 { name } else { "" };
            format!("  {name:<8}{text}\n")
        });
        indented.collect::<Vec<_>>()
    });
    output::wrapped(&title, width, "  ") + "\n" + &lines.collect::<String>()
}

fn fields(status: &NodeStatus) -> Vec<(&'static str, String)> {
    let (layers, aside, memory) = (status.busy.layers, status.busy.aside, status.busy.build_memory);
    let serving = units::time(Duration::from_secs(status.seconds));
    let volumes = count(status.volumes as u64, "volume");
    let mut fields = Vec::new();
    if status.damaged_images > 0 {
        let damaged = count(status.damaged_images as u64, "image");
        fields.push((
            "DAMAGE",
            format!("{damaged} with content that cannot be read; run `composefs-csi verify`"),
        ));
    }
    fields.extend([
        ("plugin", format!("composefs-csi {}, serving for {serving}, {volumes} mounted", status.version)),
        ("store", status.room.as_ref().map_or_else(no_room, room)),
        (
            "level",
            match &status.no_read {
                None => format!("{}: the kernel checks every read", status.integrity),
                Some(why) => format!("{}; the kernel does not check reads: {why}", status.integrity),
            },
        ),
        (
            "layers",
            format!(
                "{} of {} slots in use, {} waiting; {} of {} places of slow ones in use",
                layers.used, layers.total, layers.waiting, aside.used, aside.total
            ),
        ),
        (
            "builds",
            format!("{} of {} MiB of memory in use, {} waiting", memory.used, memory.total, memory.waiting),
        ),
    ]);
    fields
}

fn no_room() -> String {
    "its filesystem does not answer; see the kernel log of its disk".to_owned()
}

fn room(room: &Room) -> String {
    let free = room.total_bytes.saturating_sub(room.used_bytes);
    let mut text = format!("{} of {} used, {} free", percent(room), bytes(room.total_bytes), bytes(free));
    if room.total_inodes > 0 {
        let free = room.total_inodes.saturating_sub(room.used_inodes);
        text.push_str(&format!(", {free} inodes free"));
    }
    if let Some(high) = room.gc_high {
        text.push_str(&format!("; unneeded images go at {high} %"));
    }
    format!("{text}; pulls stop at {} %", 100_u8.saturating_sub(room.min_free))
}

fn percent(room: &Room) -> String {
    // In 128 bits: the product of a large disk's bytes and a percentage passes 64.
    let bytes = u128::from(room.used_bytes) * 100 / u128::from(room.total_bytes.max(1));
    if u128::from(room.percent) > bytes {
        format!("{bytes} % (and {} % of the inodes)", room.percent)
    } else {
        format!("{bytes} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::Integrity;
    use crate::pull::{Busy, Occupied};

    fn status() -> NodeStatus {
        let occupied = |used, total, waiting| Occupied { total, used, waiting };
        NodeStatus {
            version: "0.1.0".to_owned(),
            node: "node-1".to_owned(),
            seconds: 11_520,
            not_ready: None,
            integrity: Integrity::Read,
            no_read: None,
            volumes: 14,
            damaged_images: 0,
            room: Some(Room {
                directory: "/var/lib/composefs-csi/store".to_owned(),
                total_bytes: 480_100_000_000,
                used_bytes: 292_900_000_000,
                total_inodes: 30_000_000,
                used_inodes: 1_000_000,
                percent: 61,
                gc_high: Some(85),
                gc_low: Some(80),
                min_free: 2,
            }),
            busy: Busy {
                layers: occupied(4, 4, 7),
                aside: occupied(2, 16, 0),
                build_memory: occupied(256, 1024, 0),
            },
            pulls: Vec::new(),
        }
    }

    #[test]
    fn a_good_day() {
        assert_eq!(
            head(&status(), 80),
            "node-1: ready\n\
             \x20 plugin  composefs-csi 0.1.0, serving for 3 h 12 min, 14 volumes mounted\n\
             \x20 store   61 % of 480.1 GB used, 187.2 GB free, 29000000 inodes free; unneeded\n\
             \x20         images go at 85 %; pulls stop at 98 %\n\
             \x20 level   read: the kernel checks every read\n\
             \x20 layers  4 of 4 slots in use, 7 waiting; 2 of 16 places of slow ones in use\n\
             \x20 builds  256 of 1024 MiB of memory in use, 0 waiting\n"
        );
    }

    #[test]
    fn a_bad_day() {
        let mut status = NodeStatus { damaged_images: 1, room: None, ..status() };
        status.not_ready = Some("the state directory does not answer".to_owned());
        let text = head(&status, usize::MAX);
        assert!(text.starts_with("node-1: NOT ready: the state directory"), "{text}");
        assert!(text.contains("1 image with content that cannot be read"), "{text}");
        assert!(text.contains("store   its filesystem does not answer"), "{text}");
    }
}
