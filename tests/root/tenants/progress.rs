//! Who has joined another tenant's pull sees nothing of it: neither in the errors of calls, nor in the Event, nor in the
//! volume's condition. Root sees both.

use std::time::Duration;

use composefs_csi::csi::proto::NodeGetVolumeStatsRequest;
use tonic::Code;

use super::pods::*;
use crate::kubernetes::api::kubeconfig;
use crate::support::http::Server;
use crate::support::wait::eventually;

/// Whether a text says that nothing is here yet.
fn nothing(text: &str) -> bool {
    text.contains("(0.0 of ") && text.contains(" MB, 0 of 2 layers)")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_joins_a_pull_sees_nothing_of_it() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![layer("small", 64 << 10), layer("large", 32 << 20)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let server = Server::start(|asked| (201, asked.body.clone())).await;
    let directory = tempfile::tempdir().unwrap();
    let config = kubeconfig(directory.path(), &server);
    let machine = machine(&[&proxy.address], &["--kubernetes-events", &config]);
    let plugin = machine.start().await;
    let publish = |pod: &str, who, patience: Option<Duration>| {
        let mut request = machine.publish(pod, &image);
        request.secrets = secret(&proxy.address, who);
        request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), pod.to_owned());
        let mut request = tonic::Request::new(request);
        patience.into_iter().for_each(|patience| request.set_timeout(patience));
        let mut node = plugin.node.clone();
        tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) })
    };
    let said = |pod: &str| -> Vec<String> {
        let asked = server.asked().into_iter();
        let of_pod = asked.filter(|asked| asked.path.contains(&format!("/namespaces/{pod}/events")));
        of_pod.map(|asked| asked.json()["message"].as_str().unwrap_or_default().to_owned()).collect()
    };
    proxy.throttle(256 << 10);
    let alice = publish("alice", ALICE, None);
    eventually("bytes arrive", || {
        let pulls = machine.run(&["pulls"]);
        pulls[0]["layers"][0]["state"] == "done" && pulls[0]["fetched_bytes"].as_u64() > Some(1 << 20)
    })
    .await;
    let status = publish("bob", BOB, Some(Duration::from_secs(3))).await.unwrap().unwrap_err();
    assert!(nothing(status.message()), "{status}");
    let bob = publish("bob", BOB, None);
    eventually("both wait", || machine.run(&["pulls"])[0]["waiting"] == 2).await;
    let statistics = NodeGetVolumeStatsRequest {
        volume_id: "csi-bob".to_owned(),
        volume_path: machine.target("bob").display().to_string(),
        ..NodeGetVolumeStatsRequest::default()
    };
    let status = plugin.node.clone().node_get_volume_stats(statistics).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("is being pulled (") && nothing(status.message()), "{status}");
    eventually("both are told how long it takes", || said("alice").len() >= 2 && said("bob").len() >= 2)
        .await;
    assert!(said("alice")[1].contains(" MB here, "), "{:?}", said("alice"));
    for text in said("bob") {
        assert!(!text.contains("here") && !text.contains("/s") && !text.contains("left"), "{text}");
    }
    assert!(said("bob")[1].contains(" MB in 2 layers); waiting for "), "{:?}", said("bob"));
    // Root sees one pull and both pods.
    let pulls = machine.run(&["pulls"]);
    let pods: Vec<_> =
        pulls[0]["waiters"].as_array().unwrap().iter().map(|waiter| waiter["pod"].clone()).collect();
    assert_eq!((pulls.as_array().unwrap().len(), pods), (1, vec!["alice/alice".into(), "bob/bob".into()]));
    proxy.throttle(0);
    alice.await.unwrap().unwrap();
    bob.await.unwrap().unwrap();
}
