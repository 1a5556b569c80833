//! What the plugin logs: each error once, and nothing of secrets, at any level. A test binary of its own, because
//! whether a line is logged is decided once for the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use composefs_csi::csi::proto::NodePublishVolumeRequest;
use tonic::Code;
use tracing_subscriber::fmt::MakeWriter;

#[path = "support/mod.rs"]
mod support;

use support::csi::{Node, Plugin, context};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

async fn code_of(plugin: &Plugin, request: NodePublishVolumeRequest) -> Code {
    plugin.node.clone().node_publish_volume(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn nothing_is_logged_of_secrets_and_an_error_is_logged_once() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(lines.clone())
        .with_max_level(tracing::Level::TRACE)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let node = Node::new();
    let plugin = node.start().await;
    let mut request = node.publish("volume-7", "a");
    request.secrets = context(&[(".dockerconfigjson", r#"{"auths":{"r.example":{"auth":"dTpodW50ZXIy"}}}"#)]);
    request.volume_context.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), "hunter3".into());
    assert_eq!(code_of(&plugin, request.clone()).await, Code::Ok);
    request.volume_id = "volume-8".to_owned();
    assert_eq!(code_of(&plugin, request).await, Code::AlreadyExists);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in ["hunter2", "hunter3", "dTpodW50ZXIy"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(text.matches("shows volume volume-7").count(), 1, "{text}");
    assert!(text.contains("published"), "{text}");
    assert!(text.contains("volume.id=volume-8"), "{text}");
}
