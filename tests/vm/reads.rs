//! What verification costs a reader: one file through a mount that demands fs-verity beside the same file, on the same
//! disk, through one that knows nothing of it. Figures of an emulated processor: the ratio tells, not the rate.

use std::path::Path;
use std::time::{Duration, Instant};

use composefs_csi::node::mount::{KernelMounter, Mounter as _};

use crate::disk::drop_caches;
use crate::guest::whole;
use crate::support::mount::{Bench, Node, content};

const LENGTH: usize = 8 << 20;
const ROUNDS: usize = 5;

/// The file through a mount of a store of its own.
fn mounted(name: &str, sealed: bool) -> (Bench, std::path::PathBuf) {
    let bench = Bench::new(Path::new("/disk"), name, sealed);
    let image = bench.image(&[("file", Node::File(content(70, LENGTH)))]);
    let mounter = KernelMounter::start(&bench.store(), &bench.state(), sealed).unwrap();
    let target = bench.target("a");
    mounter.mount(&whole(image), &target).unwrap();
    (bench, target.join("file"))
}

fn timed(path: &Path) -> Duration {
    let started = Instant::now();
    assert_eq!(std::fs::read(path).unwrap().len(), LENGTH);
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Cold and warm, in turns.
pub fn cost_of_verification() -> String {
    let (_sealed, verified) = mounted("reads-verified", true);
    let (_plain, unverified) = mounted("reads-plain", false);
    let (mut cold, mut warm) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..ROUNDS {
        for (index, path) in [&verified, &unverified].into_iter().enumerate() {
            drop_caches();
            cold[index].push(timed(path));
            warm[index].push(timed(path));
        }
    }
    let [cold_with, cold_without] = cold.map(median);
    let [warm_with, warm_without] = warm.map(median);
    // The loosest bound that a broken comparison would break: verified pages are not verified again.
    assert!(warm_with < cold_with, "warm {warm_with:?}, cold {cold_with:?}");
    let ratio = |with: Duration, without: Duration| with.as_secs_f64() / without.as_secs_f64();
    format!(
        "{} MiB: cold {cold_with:?} beside {cold_without:?} ({:.2}), warm {warm_with:?} beside {warm_without:?} ({:.2}), \
         emulated",
        LENGTH >> 20,
        ratio(cold_with, cold_without),
        ratio(warm_with, warm_without)
    )
}
