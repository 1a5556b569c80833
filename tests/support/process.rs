//! What a process has used, as the kernel counts it.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The most memory this process ever had resident, in bytes (`VmHWM`, proc_pid_status(5)).
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a VmHWM line");
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().expect("a number of KiB");
    kib * 1024
}

/// Memory of a process that is resident, in KiB (proc_pid_status(5)).
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All of it.
    pub resident: u64,
    /// Its own: heap, stacks, data.
    pub anonymous: u64,
    /// Pages of files: mostly the program's.
    pub file: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

/// What `pid` has resident now.
pub fn memory(pid: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("such a field");
        line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
    };
    Memory {
        resident: field("VmRSS:"),
        anonymous: field("RssAnon:"),
        file: field("RssFile:"),
        peak: field("VmHWM:"),
    }
}

/// The numbers of its threads.
fn tasks(pid: u32) -> impl Iterator<Item = PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    tasks.map(|task| task.expect("a thread").path())
}

/// Its threads.
pub fn threads(pid: u32) -> usize {
    tasks(pid).count()
}

/// How often each of its threads has gone to sleep by itself, by the thread's number. Each is a time that it was woken.
pub fn voluntary_switches(pid: u32) -> BTreeMap<PathBuf, u64> {
    let of = |task: PathBuf| {
        // A thread may end while it is looked at.
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some((task, count.expect("such a field").trim().parse().expect("a number")))
    };
    tasks(pid).filter_map(of).collect()
}

/// How often the threads that live now were woken since `before`.
pub fn woken_since(before: &BTreeMap<PathBuf, u64>, pid: u32) -> u64 {
    let now = voluntary_switches(pid);
    now.iter().map(|(task, count)| count - before.get(task).copied().unwrap_or(0)).sum()
}

/// User and system time that it has used, in ticks of 10 ms (proc_pid_stat(5)).
pub fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // The fields follow the command's name, which ends with the last bracket.
    let fields = stat.rsplit_once(") ").expect("a name in brackets").1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}
