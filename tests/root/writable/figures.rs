//! Figures for docs/writable.md: what a writable volume costs beside an emptyDir in memory that the files are copied to.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{machine, on_disk, publish, unpublish, writable};
use crate::support::archive::noise;
use crate::support::images::layout_from_dirs;

const PODS: u32 = 50;

/// Memory of the kernel and of tmpfs, in KiB, of the whole machine.
fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let fields = ["Slab:", "Percpu:", "Shmem:"];
    let lines = text.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    assert!(Command::new(program).args(arguments).arg(path).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures of a machine that does nothing else"]
async fn what_a_writable_pod_costs() {
    let root = tempfile::tempdir().unwrap();
    for number in 0..1000 {
        let directory = root.path().join(format!("d{}", number / 50));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), noise(&number.to_string(), 10_000)).unwrap();
    }
    let layout = layout_from_dirs(&[root.path()]);
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let plain = publish(&plugin, machine.publish("plain", &image)).await.unwrap();
    let walk = |path: &Path| assert!(Command::new("find").arg(path).output().unwrap().stdout.len() > 1000);
    walk(&plain);
    let report = |what: &str, begun: Vec<Duration>, ended: Vec<Duration>, before: u64, after: u64| {
        let each = after.saturating_sub(before) / u64::from(PODS);
        println!("{what}: {:?} to begin, {:?} to end, {each} KiB each", median(begun), median(ended));
    };
    for kind in
        ["read-only", "writable", "writable, walked", "writable, all modes changed", "writable, on disk"]
    {
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        let before = memory();
        for number in 0..PODS {
            let pod = format!("pod-{number}");
            let request = match kind {
                "read-only" => machine.publish(&pod, &image),
                "writable, on disk" => on_disk(&machine, &pod, &image, "16Mi"),
                _ => writable(&machine, &pod, &image, "16Mi"),
            };
            let start = Instant::now();
            let target = publish(&plugin, request).await.unwrap();
            begun.push(start.elapsed());
            match kind {
                "writable, walked" => walk(&target),
                "writable, all modes changed" => run("chmod", &["-R", "g+w"], &target),
                _ => {}
            }
        }
        let after = memory();
        for number in 0..PODS {
            let start = Instant::now();
            unpublish(&plugin, &machine, &format!("pod-{number}")).await;
            ended.push(start.elapsed());
        }
        report(kind, begun, ended, before, after);
    }
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    let copies = tempfile::tempdir().unwrap();
    let before = memory();
    for number in 0..PODS {
        let directory = copies.path().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let start = Instant::now();
        run("mount", &["-t", "tmpfs", "-o", "size=64m", "tmpfs"], &directory);
        run("cp", &["-a", &format!("{}/.", plain.display())], &directory);
        begun.push(start.elapsed());
    }
    let after = memory();
    for number in 0..PODS {
        let start = Instant::now();
        run("umount", &[], &copies.path().join(number.to_string()));
        ended.push(start.elapsed());
    }
    report("emptyDir in memory and a copy", begun, ended, before, after);
    unpublish(&plugin, &machine, "plain").await;
}
