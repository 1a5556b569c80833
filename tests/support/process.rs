//! What a process has used, as the kernel counts it.

/// The most memory this process ever had resident, in bytes (`VmHWM`, proc_pid_status(5)).
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a VmHWM line");
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().expect("a number of KiB");
    kib * 1024
}
