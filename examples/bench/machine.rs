//! The machine and the programs of a measurement.

use std::fs;
use std::process::Command;

/// The head of the report.
pub fn introduction() -> String {
    let date = first_line("date", &["-u", "+%Y-%m-%d"]);
    let kernel = first_line("uname", &["-sr"]);
    let tools: Vec<String> =
        ["podman", "skopeo", "umoci"].map(|tool| first_line(tool, &["--version"])).into_iter().collect();
    format!(
        "# Benchmarks\n\nWritten by `make bench`, which measures this driver and its peers in one run, in turn, on one \
         machine. Times of different machines cannot be compared; the ratios can.\n\nMeasured {date}: {}, {} \
         processors, {} memory, {kernel}, load {} when it began; {}, {}, cfsctl 0.9.4. All of them store on one ext4 with a journal, on a loop \
         device with direct I/O; their order alternates from round to round. No fs-verity, which \
         this kernel lacks: neither we nor cfsctl pay for it.\n",
        field("/proc/cpuinfo", "model name"),
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        gigabytes(&field("/proc/meminfo", "MemTotal")),
        fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or("unknown"),
        super::containerd::version(),
        tools.join(", "),
    )
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    value.map_or("unknown", |(_, value)| value.trim()).to_owned()
}

fn gigabytes(kibibytes: &str) -> String {
    let number: f64 = kibibytes.trim_end_matches(" kB").parse().unwrap_or(0.0);
    format!("{:.0} GB", number * 1024.0 / 1e9)
}
