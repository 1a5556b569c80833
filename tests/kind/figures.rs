//! What the driver costs a node on which nothing happens.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::node::INSPECTOR;

/// At most this much resident memory, in KiB: all of it for the program that is released; for one that was built
/// without optimisation, whose code is twice as large, what is its own (`RssAnon`).
const RESIDENT: u64 = 32 * 1024;
/// How long the driver is watched, and how many ticks of 10 ms it may use in that time: one hundredth of a processor,
/// which is ten times what it is seen to use, since the kernel counts whole ticks and others run here. How often it wakes
/// for nothing is counted exactly by `tests/idle.rs`.
const WATCH: Duration = Duration::from_secs(30);
const TICKS: u64 = 30;
/// In one of so many such times: the suite's last pods still go, and a round of housekeeping is due every five minutes.
/// A driver that is busy for nothing is so in all of them.
const WATCHES: usize = 4;

/// The node plugin after all that the suite has done: its memory and its processor time.
pub async fn idle(cluster: &Cluster) {
    cluster.inspect().await;
    let pids = cluster.processes("/usr/bin/composefs-csi node ");
    let [pid] = pids[..] else { panic!("one node plugin runs on a node, and not {pids:?}") };
    let mut watches = Vec::new();
    while watches.len() < WATCHES && watches.iter().all(|used| *used > TICKS) {
        let before = ticks(cluster, pid);
        tokio::time::sleep(WATCH).await;
        watches.push(ticks(cluster, pid) - before);
    }
    // Only now is it idle: threads that the last pods needed stay for ten seconds.
    let [resident, anonymous, threads] =
        ["VmRSS", "RssAnon", "Threads"].map(|field| status(cluster, pid, field));
    // The code of a program that was not optimised says nothing of the one that is released.
    let (what, counted) = match cluster.settings.unoptimised {
        true => ("its own memory, as this build is not optimised", anonymous),
        false => ("all that is resident", resident),
    };
    println!(
        "kind: the node plugin has {resident} KiB resident, {anonymous} of them its own, {threads} threads, and used \
         {watches:?} ticks of 10 ms in {WATCH:?} each; judged by {what}: {counted} of {RESIDENT} KiB"
    );
    assert!(counted <= RESIDENT, "{counted} KiB ({what}); at most {RESIDENT} are wanted");
    assert!(
        watches.iter().any(|used| *used <= TICKS),
        "{watches:?} ticks of processor time in {WATCH:?} each; at most {TICKS} are wanted"
    );
}

/// A number of the process's status; memory is in KiB.
fn status(cluster: &Cluster, pid: u32, field: &str) -> u64 {
    let line = cluster.sh(INSPECTOR, &format!("grep {field}: /proc/{pid}/status"));
    line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
}

/// User and system time; the fields follow the command's name, which ends with the last bracket.
fn ticks(cluster: &Cluster, pid: u32) -> u64 {
    let line = cluster.sh(INSPECTOR, &format!("cat /proc/{pid}/stat"));
    let fields = line.rsplit_once(") ").expect("a name in brackets").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}
