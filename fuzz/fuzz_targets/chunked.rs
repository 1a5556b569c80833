//! The tables of zstd:chunked layers.
//!
//! Input: a byte of choice, a byte for the gap, a line with the JSON of a table of contents, and the lines of a tar-split.
//! Held: of a table that is taken, files and chunks lie one behind the other and fill what they are part of; a plan by any part of it
//! asks for no more ranges than it may, and for every frame that it needs; tables that agree give an archive of as many
//! bytes as they say, whatever the frames hold, or none.

#![no_main]

use std::io::Read as _;
use std::sync::LazyLock;

use bytes::Bytes;
use composefs_csi::image::chunked::{
    Found, Local, Part, Plan, PlanRules, Rebuild, TarSplit, Toc, Wire, compare,
};
use composefs_csi::image::objects::Objects;
use libfuzzer_sys::fuzz_target;

static OBJECTS: LazyLock<Objects> = LazyLock::new(|| {
    let store = std::path::PathBuf::from(format!("/dev/shm/composefs-csi-fuzz.{}", std::process::id()));
    std::fs::create_dir(&store).expect("a directory in /dev/shm");
    Objects::create(&store).expect("objects");
    Objects::open(&store, false).expect("objects")
});

fuzz_target!(|input: &[u8]| {
    let [choice, gap, rest @ ..] = input else { return };
    let (json, lines) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    let lines = lines.strip_prefix(b"\n").unwrap_or_default();
    let end = 1 << 16;
    let Ok(toc) = Toc::parse(json, end, 1000) else { return };
    let mut before = 0;
    for file in &toc.files {
        assert!(file.size > 0 && before <= file.frames.start && file.frames.start < file.frames.end);
        before = file.frames.end;
        let chunks = toc.chunks(file);
        let Some((first, last)) = chunks.first().zip(chunks.last()) else { continue };
        assert_eq!((first.frames.start, first.bytes.start), (file.frames.start, 0));
        assert_eq!((last.frames.end, last.bytes.end), (file.frames.end, file.size));
        for pair in chunks.windows(2) {
            assert_eq!((pair[0].frames.end, pair[0].bytes.end), (pair[1].frames.start, pair[1].bytes.start));
            assert!(pair[0].frames.start < pair[0].frames.end && pair[0].bytes.start < pair[0].bytes.end);
        }
    }
    assert!(before <= end);
    let mut found = Found::default();
    for file in toc.files.iter().skip(usize::from(choice & 3)).step_by(usize::from(choice >> 2 & 3) + 1) {
        found.files.insert(file.digest, Local::Inline((*b"other").into()));
    }
    let rules = PlanRules { gap: u64::from(*gap), requests: usize::from(choice >> 4) + 1 };
    let plan = Plan::of(&toc, &found, rules);
    assert!(plan.runs.len() <= rules.requests && plan.runs.windows(2).all(|pair| pair[0].end < pair[1].start));
    let Ok(bytes) = compare(&mut TarSplit::new(lines, 1 << 20), &toc) else { return };
    let parts: Vec<Part> = plan
        .runs
        .iter()
        .map(|run| Part { start: run.start, bytes: Bytes::from(vec![*gap; (run.end - run.start) as usize]) })
        .collect();
    let wire = Wire::new(parts.into_iter());
    let (mut tar, split) = (Vec::new(), TarSplit::new(lines, 1 << 20));
    let rebuilt = Rebuild::new(&toc, &plan, split, &OBJECTS, wire).take(1 << 20).read_to_end(&mut tar);
    if rebuilt.is_ok() && bytes < 1 << 20 && found.files.is_empty() {
        assert_eq!(tar.len() as u64, bytes);
    }
});
