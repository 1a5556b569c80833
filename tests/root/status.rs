//! The running plugin on one screen, and what a volume's condition says while its image is pulled.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::{NodeGetVolumeStatsRequest, NodeStageVolumeRequest};
use serde_json::Value;
use tonic::Code;

use crate::cli::on_a_terminal;
use crate::pulls::Slow;
use crate::support::driver::Machine;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_fits_on_one_screen() {
    let slow = Slow::start(&[]).await;
    let waiting = [slow.publish("a"), slow.publish("b")];
    slow.until(|pulls| {
        pulls.len() == 1 && pulls[0]["waiting"] == 2 && pulls[0]["seconds_left"].as_u64() > Some(0)
    })
    .await;
    let status = slow.machine.run(&["status"]);
    assert_eq!((&status["node"], &status["not_ready"]), (&"node-1".into(), &Value::Null));
    assert_eq!((&status["integrity"], &status["volumes"]), (&"fetch".into(), &0.into()));
    assert!(status["room"]["total_bytes"].as_u64() > status["room"]["used_bytes"].as_u64(), "{status}");
    assert_eq!(
        (&status["busy"]["layers"]["used"], &status["busy"]["layers"]["total"]),
        (&1.into(), &4.into())
    );
    let pull = &status["pulls"][0];
    assert_eq!((&pull["phase"], &pull["image"]), (&"fetching".into(), &slow.image.clone().into()));
    let volumes: Vec<_> = pull["waiters"].as_array().unwrap().iter().map(|one| &one["volume"]).collect();
    assert_eq!(volumes.len(), 2);
    assert!(volumes.contains(&&"csi-a".into()) && volumes.contains(&&"csi-b".into()), "{pull}");
    assert!(
        pull["fetched_bytes"].as_u64() > Some(0)
            && pull["done_bytes"].as_u64() < pull["total_bytes"].as_u64()
    );

    let shown = on_a_terminal(&slow.machine, &["status"]);
    let text = shown.join("\n");
    for part in [
        "node-1: ready",
        "  layers  1 of 4 slots in use",
        &slow.image,
        "2 layers: 1 done, 1 fetching",
        "2 calls wait, for ",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert!(shown.iter().all(|line| line.chars().count() <= 80), "{text}");

    let statistics = NodeGetVolumeStatsRequest {
        volume_id: "csi-a".to_owned(),
        volume_path: slow.machine.target("a").display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let mut node = slow.plugin.node.clone();
    let status = node.node_get_volume_stats(statistics.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(
        status.message().contains("is being pulled (") && status.message().contains(" MB, 1 of 2 layers"),
        "{status}"
    );
    slow.proxy.throttle(0);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    let healthy =
        node.node_get_volume_stats(statistics).await.unwrap().into_inner().volume_condition.unwrap();
    assert!(!healthy.abnormal, "{healthy:?}");
    let shown = on_a_terminal(&slow.machine, &["status"]).join("\n");
    assert!(shown.contains("2 volumes mounted") && shown.ends_with("no image is being pulled"), "{shown}");
}

/// The image of a staged volume is lost, and pulled again when its pod comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_staged_volume_says_that_its_pod_waits_for_a_pull() {
    let mut slow = Slow::start(&[]).await;
    slow.proxy.throttle(0);
    let publish = slow.machine.publish("a", &slow.image);
    let staging = slow.machine.path().join("kubelet/plugins/stage");
    std::fs::create_dir_all(&staging).unwrap();
    let stage = NodeStageVolumeRequest {
        volume_id: publish.volume_id.clone(),
        staging_target_path: staging.display().to_string(),
        volume_capability: publish.volume_capability,
        volume_context: [("image".to_owned(), slow.image.clone())].into(),
        ..NodeStageVolumeRequest::default()
    };
    slow.plugin.node.clone().node_stage_volume(stage).await.unwrap();
    let condition = async |slow: &Slow| {
        let statistics = NodeGetVolumeStatsRequest {
            volume_id: "csi-a".to_owned(),
            volume_path: staging.display().to_string(),
            ..NodeGetVolumeStatsRequest::default()
        };
        let told = slow.plugin.node.clone().node_get_volume_stats(statistics).await.unwrap().into_inner();
        let condition = told.volume_condition.unwrap();
        assert!(!condition.abnormal, "{condition:?}");
        condition.message
    };
    assert_eq!(condition(&slow).await, "staged: the image is on this node");
    slow.plugin.process.0.kill().unwrap();
    slow.plugin.process.0.wait().unwrap();
    for records in ["images", "layers"] {
        for file in std::fs::read_dir(slow.machine.state().join("store").join(records)).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    slow.plugin = slow.machine.start().await;
    slow.proxy.throttle(256 << 10);
    let waiting = slow.publish("a");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let message = condition(&slow).await;
        if message.contains(" layers") {
            let begins = message.starts_with("staged; image ");
            assert!(begins && message.contains(" is being pulled ("), "{message}");
            break;
        }
        assert!(Instant::now() < deadline, "{message}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    slow.proxy.throttle(0);
    waiting.await.unwrap().unwrap();
    assert_eq!(condition(&slow).await, "staged: the image is on this node");
}

/// What a process writes, line by line.
fn lines_of(mut command: Command) -> (crate::support::registry::Running, mpsc::Receiver<String>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    (crate::support::registry::Running(child), lines)
}

fn next(lines: &mpsc::Receiver<String>, wanted: &str) -> String {
    loop {
        let line =
            lines.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("no line says {wanted:?}"));
        if line.contains(wanted) {
            return line;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_goes_on_over_a_crash_of_the_plugin() {
    let mut slow = Slow::start(&[]).await;
    let waiting = slow.publish("a");
    slow.until(|pulls| pulls.len() == 1 && pulls[0]["bytes_per_second"].as_u64() > Some(0)).await;
    // Bars on a terminal, as `pull` draws them.
    let command = slow.machine.command(&["status", "--watch"]);
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let line = format!("stty columns 80 rows 24; timeout -s INT 4 {}", words.join(" "));
    let drawn = Command::new("script").args(["-q", "-c", &line, "/dev/null"]).output().unwrap();
    let drawn = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(drawn.contains("node-1: ready") && drawn.contains(&slow.image), "{drawn}");
    assert!(drawn.contains('█') || drawn.contains('░'), "no bar: {drawn:?}");

    let (_watching, lines) = lines_of(slow.machine.command(&["status", "--watch"]));
    let mut json = slow.machine.command(&["status", "--watch", "--output", "json"]);
    json.stderr(Stdio::null());
    let (_documents, documents) = lines_of(json);
    let line = next(&lines, &slow.image);
    assert!(line.contains(": fetching, ") && line.contains("1 call waits"), "{line}");
    let document: Value = serde_json::from_str(&next(&documents, "\"pulls\"")).unwrap();
    assert_eq!(document["pulls"][0]["image"], slow.image.as_str());
    slow.plugin.process.0.kill().unwrap();
    slow.plugin.process.0.wait().unwrap();
    waiting.await.unwrap().unwrap_err();
    next(&lines, "no node plugin answers");
    let _plugin = slow.machine.start().await;
    next(&lines, "no image is being pulled");
    let document: Value = serde_json::from_str(&next(&documents, "\"pulls\":[]")).unwrap();
    assert_eq!(document["not_ready"], Value::Null);
}

#[test]
fn without_a_plugin_the_command_says_so() {
    let machine = Machine::new(&[]);
    for arguments in [&["status"][..], &["status", "--watch"]] {
        let output = machine.command(arguments).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && complaint.contains("no node plugin answers"), "{complaint}");
    }
}
