//! The report: tables for docs/benchmarks.md, and a picture for each.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::fixtures::Fixture;
use super::many::Way;
use super::plot::{Bar, bars, curve};
use super::policy::{Judge, Judged};
use super::publish::{AT_ONCE, Latency};
use super::pull::Rounds;
use super::reads::{Reads, Side};
use super::sharing::Sharing;
use super::stats::{median, range};

const MIB: f64 = 1_048_576.0;

/// A report that grows section by section.
#[derive(Debug)]
pub struct Report<'a> {
    text: String,
    directory: &'a Path,
}

impl<'a> Report<'a> {
    /// Starts a report; it and its pictures are written into `directory`.
    pub fn new(directory: &'a Path, introduction: &str) -> Self {
        Self { text: introduction.to_owned(), directory }
    }

    /// Writes `benchmarks.md` and returns its text.
    pub fn finish(self) -> Result<String> {
        fs::write(self.directory.join("benchmarks.md"), &self.text)?;
        Ok(self.text)
    }

    /// Appends a line.
    pub fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn picture(&mut self, name: &str, alternative: &str, svg: &str) -> Result<()> {
        let directory = self.directory.join("benchmarks");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(name), svg)?;
        self.add(&format!("\n![{alternative}](benchmarks/{name})"));
        Ok(())
    }

    /// From the registry to readable files.
    pub fn pull(&mut self, fixture: &Fixture, all: &[Rounds], targets: &[(&str, f64)]) -> Result<()> {
        let Some(ours) = all.first() else { return Ok(()) };
        self.add(&format!(
            "\n## From a registry to readable files, cold\n\n{} files, {:.2} GB ({:.0} MB compressed), 3 layers; \
             the store is empty and all caches are dropped before each of {} rounds; medians. Processor time and peak \
             are those of the daemon where there is one.\n",
            fixture.files,
            fixture.content as f64 / 1e9,
            fixture.compressed as f64 / 1e6,
            ours.costs.len()
        ));
        self.add("| | seconds | range | CPU seconds | peak memory | ours takes | of the CPU | target |");
        self.add("|---|---|---|---|---|---|---|---|");
        let mut plotted = Vec::new();
        for rounds in all {
            let seconds = rounds.median_seconds();
            let (least, most) = range(&rounds.seconds());
            let ratio = ours.median_seconds() / seconds;
            let target = targets.iter().find(|(peer, _)| rounds.peer.starts_with(peer));
            self.add(&format!(
                "| {} | {seconds:.2} | {least:.2}–{most:.2} | {:.1} | {:.0} MiB | {} | {} | {} |",
                rounds.peer,
                rounds.median_cpu(),
                rounds.median_peak() / MIB,
                if rounds.peer == ours.peer { "–".to_owned() } else { format!("{ratio:.2}") },
                if rounds.peer == ours.peer {
                    "–".to_owned()
                } else {
                    format!("{:.2}", ours.median_cpu() / rounds.median_cpu())
                },
                target.map_or("–".to_owned(), |(_, limit)| verdict(ratio, *limit, "")),
            ));
            plotted.push(Bar {
                label: rounds.peer.to_owned(),
                value: seconds,
                range: Some((least, most)),
                ours: rounds.peer == ours.peer,
                text: format!("{seconds:.1} s"),
            });
        }
        let svg = bars("Registry to readable files, cold: seconds (median, range)", &plotted);
        self.picture("pull.svg", "Seconds from a registry to readable files", &svg)
    }

    /// A pull beside what a node does without us, in all that it costs.
    pub fn beside_containerd(&mut self, fixture: &Fixture, all: &[Rounds]) {
        let [ours, theirs] = all else { return };
        self.add(&format!(
            "\n## Beside containerd\n\n{} files, {:.0} MB ({:.0} MB compressed), 2 layers; as above, {} rounds. containerd \
             pulls and unpacks as for kubelet's image volumes, and syncs nothing; we sync before an image exists.\n",
            fixture.files,
            fixture.content as f64 / 1e6,
            fixture.compressed as f64 / 1e6,
            ours.costs.len()
        ));
        self.add("| | composefs-csi | containerd | ratio | target |\n|---|---|---|---|---|");
        let peak = |rounds: &Rounds| rounds.median_peak() / MIB;
        for (what, ours, theirs, digits, limit) in [
            ("seconds", ours.median_seconds(), theirs.median_seconds(), 2, 0.25),
            ("CPU seconds", ours.median_cpu(), theirs.median_cpu(), 2, 0.30),
            ("peak memory, MiB", peak(ours), peak(theirs), 0, 1.0),
        ] {
            let target = verdict(ours / theirs, limit, "");
            self.add(&format!(
                "| {what} | {ours:.digits$} | {theirs:.digits$} | {:.2} | {target} |",
                ours / theirs
            ));
        }
    }

    /// Peak memory over images that differ in one thing.
    pub fn memory(&mut self, measured: &[(&Fixture, &Rounds)]) {
        self.add(
            "\n## Memory of a pull\n\nPeak resident memory of the whole process (`ru_maxrss`), medians.\n",
        );
        self.add("| image | files | content | peak | per file | target |\n|---|---|---|---|---|---|");
        let peak = |tag: &str| {
            let found = measured.iter().find(|(fixture, _)| fixture.tag == tag);
            found.map_or(0.0, |(_, rounds)| rounds.median_peak())
        };
        for (fixture, rounds) in measured {
            let (bytes, per_file) = (rounds.median_peak(), rounds.median_peak() / 1e3 / fixture.files as f64);
            let target = match fixture.tag.as_str() {
                "v1" => verdict(bytes / MIB, 160.0, " MiB"),
                // A tenth is the noise of allocators and threads.
                "whole" => verdict(bytes / peak("half"), 1.1, " of `half`"),
                "tiny" => verdict(per_file, 3.0, " KB per file"),
                _ => "–".to_owned(),
            };
            self.add(&format!(
                "| {} | {} | {:.0} MB | {:.0} MiB | {per_file:.2} KB | {target} |",
                fixture.tag,
                fixture.files,
                fixture.content as f64 / 1e6,
                bytes / MIB,
            ));
        }
        self.add("\n`half` and `whole` have equally many files; those of `whole` are twice as large.");
    }

    /// Publishes of a stored image.
    pub fn publish(&mut self, latency: &Latency) -> Result<()> {
        self.add(&format!(
            "\n## Publishing an image that is there\n\n{} NodePublishVolume calls over the socket, another pod \
             each; milliseconds.\n\n| | median | p90 | p99 | most | target |\n|---|---|---|---|---|---|",
            latency.publish.len()
        ));
        let [p50, p90, p99, most] = [50.0, 90.0, 99.0, 100.0].map(|p| latency.publish_percentile(p));
        let target = verdict(p99, 5.0, " ms at p99");
        self.add(&format!("| publish | {p50:.2} | {p90:.2} | {p99:.2} | {most:.2} | {target} |"));
        let [p50, p90, p99, most] = [50.0, 90.0, 99.0, 100.0].map(|p| latency.at_once_percentile(p));
        self.add(&format!("| publish, {AT_ONCE} at once | {p50:.2} | {p90:.2} | {p99:.2} | {most:.2} | – |"));
        let [p50, p90, p99, most] = [50.0, 90.0, 99.0, 100.0].map(|p| latency.unpublish_percentile(p));
        self.add(&format!("| unpublish | {p50:.2} | {p90:.2} | {p99:.2} | {most:.2} | – |"));
        let points: Vec<(f64, f64)> =
            (1..=100).map(|p| (f64::from(p), latency.publish_percentile(f64::from(p)))).collect();
        let svg = curve("Publish of an image already there", &points, 5.0, "ms", "percentile");
        self.picture("publish.svg", "Publish latency by percentile", &svg)
    }

    /// Publishes with different policies.
    pub fn policy(&mut self, judged: &Judged) {
        self.add(&format!(
            "\n## What a signature policy costs a publish\n\n{} NodePublishVolume calls by each policy, in turn, to one \
             plugin that has the image, another pod each; milliseconds. cosign has signed the image with a P-256 key; \
             the record of access is read for every pod. A judgement is remembered for as long as policy, image and \
             signature stay what they are, ten minutes at the most; \"anew\" is a pod of a namespace whose policy was \
             not asked for before: policy and key are read, and the signature is verified.\n",
            judged.count()
        ));
        self.add("| policy | median | p90 | p99 | median, ratio | p99, ratio |\n|---|---|---|---|---|---|");
        let percentiles = |judge| [50.0, 90.0, 99.0].map(|percent| judged.percentile(judge, percent));
        let [open, _, open_p99] = percentiles(Judge::AcceptAll);
        for judge in Judge::ALL {
            let [p50, p90, p99] = percentiles(judge);
            let name = match judge {
                Judge::AcceptAll => "`insecureAcceptAnything`",
                Judge::Signature => "`sigstoreSigned`, one key",
                Judge::SignatureAnew => "`sigstoreSigned`, one key, anew",
            };
            let ratios = match judge {
                Judge::AcceptAll => "– | –".to_owned(),
                _ => format!("{:.2} | {:.2}", p50 / open, p99 / open_p99),
            };
            self.add(&format!("| {name} | {p50:.2} | {p90:.2} | {p99:.2} | {ratios} |"));
        }
    }

    /// Page frames of many pods.
    pub fn sharing(&mut self, all: &[Sharing]) -> Result<()> {
        self.add(
            "\n## Memory of many pods\n\nEvery file is read in every pod; page frames are counted by their numbers in \
             /proc/self/pagemap. Expected: each distinct content once, and the few bytes that lie inline in an \
             image once for that image. \"Image by image\" is what sharing within an image only would take, \
             as with overlayfs when no layer is the same.\n",
        );
        self.add("| | common bytes | pages, image by image | page frames | expected | exactly once |");
        self.add("|---|---|---|---|---|---|");
        let mut plotted = Vec::new();
        for sharing in all {
            let label = format!("{} pods, {}", sharing.pods, images(sharing.images));
            self.add(&format!(
                "| {label} | {:.1} % | {} | {} | {} | {} |",
                sharing.common * 100.0,
                sharing.by_image,
                sharing.frames,
                sharing.expected,
                if sharing.frames == sharing.expected { "yes" } else { "**no**" }
            ));
            let gigabytes = |pages: u64| pages as f64 * 4096.0 / 1e9;
            for (name, pages, ours) in
                [("image by image", sharing.by_image, false), ("measured", sharing.frames, true)]
            {
                let value = gigabytes(pages);
                let text = format!("{value:.2} GB");
                plotted.push(Bar { label: format!("{label}: {name}"), value, range: None, ours, text });
            }
        }
        self.picture("sharing.svg", "Page cache of fifty pods", &bars("Page cache of 50 pods", &plotted))
    }

    /// Metadata of many images on one base.
    pub fn many(&mut self, ways: &[Way], images: usize, files: usize) {
        self.add(&format!(
            "\n## Many images on one base\n\n{images} images, each of the same layer of {files} files and 20 files of its own, \
             all mounted, and every file looked at (`stat`) in each. Contents are left out; each way has them once. On disk: what \
             is no file's content, without inodes. Memory: what the kernel charges to a cgroup for it, its own (inodes, names, \
             superblocks) and pages of metadata; a disk filesystem's own blocks are not charged.\n\n\
             | | metadata on disk, MB | an image | kernel memory, MB | an image | pages, MB | an image |\n\
             |---|---|---|---|---|---|---|"
        ));
        for way in ways {
            let of = |bytes: u64| {
                let bytes = bytes as f64 / 1e6;
                format!("{bytes:.1} | {:.2}", bytes / images as f64)
            };
            let (disk, kernel, pages) = (of(way.disk), of(way.charged.kernel), of(way.charged.pages));
            self.add(&format!("| {} | {disk} | {kernel} | {pages} |", way.name));
        }
    }

    /// Listing and reading.
    pub fn reads(&mut self, all: &[Reads]) -> Result<()> {
        self.add(
            "\n## Reading\n\nBeside the kernel's overlayfs of the extracted layers (podman's), on the same disk; medians. Before \
             each cold pass the caches are dropped and the image is mounted anew; requests are those that the disk \
             answered from then on, which other load cannot change, as it does times.\n\n\
             | | overlayfs, seconds | composefs | ratio | overlayfs, requests | composefs | ratio | target |\n\
             |---|---|---|---|---|---|---|---|",
        );
        let mut plotted = Vec::new();
        for reads in all {
            let (overlay, ours) = (median(&reads.overlay.seconds), median(&reads.ours.seconds));
            let requests = match (median(&reads.overlay.requests), median(&reads.ours.requests)) {
                (0.0, _) => "– | – | –".to_owned(),
                (overlay, ours) => format!("{overlay:.0} | {ours:.0} | {:.2}", ours / overlay),
            };
            let target = verdict(ours / overlay, 1.05, " of the time");
            let ratio = ours / overlay;
            self.add(&format!(
                "| {} | {overlay:.3} | {ours:.3} | {ratio:.2} | {requests} | {target} |",
                reads.what
            ));
            for (name, seconds, is_ours) in
                [("overlayfs", &reads.overlay.seconds, false), ("composefs", &reads.ours.seconds, true)]
            {
                plotted.push(Bar {
                    label: format!("{}: {name}", reads.what.replace('`', "")),
                    value: median(seconds),
                    range: Some(range(seconds)),
                    ours: is_ours,
                    text: format!("{:.2} s", median(seconds)),
                });
            }
        }
        self.add(
            "\nOur metadata is read ahead at the mount. Without that, and with all objects looked up beforehand \
             (`--stat-ahead`; looking up counts as requests and not as time):\n\n\
             | | not read ahead, seconds | requests | read ahead, seconds | requests | looked up, seconds | requests |\n\
             |---|---|---|---|---|---|---|",
        );
        for reads in all.iter().filter(|reads| !reads.plain.seconds.is_empty()) {
            let of = |side: &Side| format!("{:.3} | {:.0}", median(&side.seconds), median(&side.requests));
            let (plain, ours, looked_up) = (of(&reads.plain), of(&reads.ours), of(&reads.looked_up));
            self.add(&format!("| {} | {plain} | {ours} | {looked_up} |", reads.what));
        }
        self.picture(
            "reads.svg",
            "Seconds to list and to read a tree",
            &bars("Reading a whole tree", &plotted),
        )
    }
}

fn images(count: usize) -> String {
    if count == 1 { "one image".to_owned() } else { format!("{count} images") }
}

/// "≤ 5 ms ✓", or the same with a cross.
fn verdict(value: f64, limit: f64, unit: &str) -> String {
    format!("≤ {limit}{unit} {}", if value <= limit { "✓" } else { "✗" })
}
