//! Names from outside: one address has one name, and none forges a line of the log. Needs root.

use serde_json::json;
use tonic::Code;

use crate::outright::{Port, publish, refused, write};
use crate::support::driver::Machine;

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_address_leads_around_its_scope() {
    let (port, directory) = (Port::open().await, tempfile::tempdir().unwrap());
    let number = port.host.rsplit(':').next().unwrap().to_owned();
    let policy = write(
        directory.path(),
        "policy.json",
        &json!({"default": [{"type": "insecureAcceptAnything"}],
                "transports": {"docker": {&port.host: [{"type": "reject"}]}}}),
    );
    let machine = Machine::new(&["--policy", &policy, &format!("--insecure-registry={}", port.host)]);
    let plugin = machine.start().await;
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:7f00:0001]"] {
        refused(publish(&machine, &plugin, "shop", &format!("{host}:{number}/team/app:1")).await);
    }
    for host in ["127.1", "127.0.1", "0x7f.1", "0177.0.0.1", "2130706433", "127.0.0.1.", "0.0.0.0", "[::]"] {
        let image = format!("{host}:{number}/team/app:1");
        let status = publish(&machine, &plugin, "shop", &image).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{image}: {status:?}");
    }
    let zero = format!("127.0.0.1:0{number}/team/app:1");
    assert_eq!(publish(&machine, &plugin, "shop", &zero).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(port.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_outside_begins_a_line_of_the_log() {
    let machine = Machine::new(&["--log-level=debug"]);
    let mut plugin = machine.start().await;
    let forged = "\nERROR forged\u{2028}\u{202e}\u{1b}[2J";
    let with = |pod: &str, name: &str, value: String| {
        let mut request = machine.publish(pod, "r.example/a:1");
        request.volume_context.insert(name.to_owned(), value);
        request
    };
    for (number, request) in [
        with("one", "image", format!("oci:/a{forged}")),
        with("two", "image", format!("r.example/a{forged}")),
        with("three", "path", format!("a{forged}")),
        with("four", "platform", format!("linux/amd64{forged}")),
        with("five", &format!("attribute{forged}"), "x".to_owned()),
        with("six", "csi.storage.k8s.io/pod.name", format!("pod{forged}")),
        with("seven", "csi.storage.k8s.io/pod.namespace", format!("namespace{forged}")),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = plugin.node.node_publish_volume(request).await;
        assert!(answer.is_err(), "{number}");
    }
    let mut request = machine.publish("eight", "r.example/a:1");
    request.volume_id = format!("id{forged}");
    assert!(plugin.node.node_publish_volume(request).await.is_err());
    let said = machine.command(&["policy", "check", &format!("oci:/a{forged}")]).output().unwrap();
    assert!(!said.status.success());
    let log = machine.log();
    assert!(log.contains("forged"), "{log}");
    let is_wrong =
        |line: &&str| line.starts_with("ERROR") || line.contains(['\u{2028}', '\u{202e}', '\u{1b}']);
    assert_eq!(log.lines().find(is_wrong), None);
}
