//! One who guesses a file of another tenant's private image: nothing that he is told turns on whether the guess is right.

use std::time::Duration;

use serde_json::Value;

use super::pods::*;
use crate::kubernetes::api::kubeconfig;
use crate::support::archive::archive;
use crate::support::http::Server;
use crate::support::registry::free_port;
use crate::support::wait::eventually;
use crate::telemetry::page::Watch;

/// As long as what is kept as an object of its own, and no longer.
fn content(number: u32) -> Vec<u8> {
    format!("the code that opens the safe behind the picture in the hall is {number:06}{:50}", "")
        .into_bytes()
}

fn guess(number: u32) -> Vec<Vec<u8>> {
    vec![archive(&[("guess", &content(number))])]
}

/// What is told of an image, with its name and the time left out.
fn masked(event: &Value, image: &str) -> String {
    let text = event["message"].as_str().unwrap().replace(image, "IMAGE");
    let (before, after) = text.split_once(" in ").unwrap();
    let (_, after) = after.split_once(" s ").unwrap();
    format!("{before} in T s {after}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_guess_looks_like_a_wrong_one() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![archive(&[("secret", &content(271_828)), ("other", &content(1))])], "alice/app:1");
    let server = Server::start(|asked| (201, asked.body.clone())).await;
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let watch = Watch { address: format!("127.0.0.1:{}", free_port()) };
    let metrics = format!("--metrics-listen={}", watch.address);
    let machine = machine(&[&proxy.address], &["--kubernetes-events", &config, &metrics]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let (alice, bob) = (secret(&proxy.address, ALICE), secret(&proxy.address, BOB));
    pods.start(&format!("{}/alice/app:1", proxy.address), "IfNotPresent", &alice).await.unwrap();
    // Of its disk the node hears too, if this machine's is full; and of a pull's beginning its pod, if it is slow.
    let heard = || {
        let mut asked = server.asked();
        asked.retain(|asked| asked.json()["reason"] == "Pulled");
        asked
    };
    eventually("alice hears of her pull", || heard().len() == 1).await;

    // What is on the page, without what counts calls and measures times. How full the filesystem is, in thousandths, is
    // everybody's who writes there, as other tests do meanwhile.
    let page = async || {
        let told = |line: &&str| {
            ["store_", "saved_", "gc_removed", "pulls_under_way"].iter().any(|name| line.contains(name))
                && !line.starts_with('#')
                && !line.contains("store_filesystem_")
        };
        let text = watch.get("/metrics").await.1;
        text.lines().filter(told).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut told = Vec::new();
    for (round, number) in [314_159, 271_828, 161_803].into_iter().enumerate() {
        let image = format!("{}/bob/guess:{number}", proxy.address);
        push(&registry, guess(number), &format!("bob/guess:{number}"));
        let before = page().await;
        pods.start(&image, "IfNotPresent", &bob).await.unwrap();
        eventually("bob hears of his pull", || heard().len() == round + 2).await;
        // Housekeeping follows a pull.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(page().await, before, "{number}");
        told.push(masked(&heard()[round + 1].json(), &image));
    }
    assert!(told.iter().all(|text| *text == told[0]), "{told:#?}");
    assert!(!told[0].contains("saved") && !told[0].contains("fetched"), "{told:?}");
}
