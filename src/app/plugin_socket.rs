//! What the operator's commands ask a running node plugin: HTTP and JSON over a Unix socket in the state directory.
//!
//! `GET /status` answers with the state of the plugin, `GET /pulls` with the pulls under way, `POST /pulls/cancel` ends
//! those of the image that the body names, `POST /refresh` asks for the tags that volumes follow. Only root can connect: the socket has the mode 0600, and the kernel says who
//! is at the other end. Answers name the pods of all tenants. No answer holds a credential.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::connections::{self, Listener, text};
use super::status::{NodeStatus, StatusSource};
pub use crate::node::volume::follow::FollowedVolume;
use crate::pull::PullUnderWay;

/// Bytes of a request's body, which is one reference.
const BODY_MAX: usize = 16 << 10;
/// How long a command waits for an answer. The plugin has its own within a few seconds, or none.
const PATIENCE: Duration = Duration::from_secs(15);

/// The socket. It goes with the value.
#[derive(Debug)]
pub(super) struct PluginSocket {
    listener: UnixListener,
    path: PathBuf,
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("plugin.sock")
}

impl PluginSocket {
    /// Listens in the state directory, which the caller has locked.
    ///
    /// # Errors
    /// Those of bind(2), for example that the path has more than 107 bytes.
    pub(super) fn bind(state_dir: &Path) -> io::Result<Self> {
        let path = path_in(state_dir);
        // Of a plugin that was killed: only the owner of the lock comes here.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Serves until the shutdown.
    pub(super) async fn serve(self, source: StatusSource, shutdown: CancellationToken) -> anyhow::Result<()> {
        let source = Arc::new(source);
        let answer = move |request| {
            let source = Arc::clone(&source);
            async move { answer(request, &source).await }
        };
        connections::serve(self, "commands", answer, shutdown).await
    }
}

impl Drop for PluginSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener for PluginSocket {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let stream = Listener::accept(&self.listener).await?;
            // Before the mode was set, and where a mount shows the directory to others.
            let peer = stream.peer_cred()?.uid();
            if peer == 0 || peer == rustix::process::geteuid().as_raw() {
                return Ok(stream);
            }
            tracing::warn!(
                user = peer,
                "refused a connection to the plugin's socket: only root commands a node"
            );
        }
    }
}

async fn answer(request: Request<Incoming>, source: &StatusSource) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/status") => json(&source.status().await),
        (&Method::GET, "/pulls") => json(&source.puller.under_way()),
        (&Method::POST, "/pulls/cancel") => match Limited::new(request.into_body(), BODY_MAX).collect().await
        {
            Ok(body) => json(&source.puller.cancel(String::from_utf8_lossy(&body.to_bytes()).trim())),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        (&Method::POST, "/refresh") => match Limited::new(request.into_body(), BODY_MAX).collect().await {
            Ok(body) => {
                let what = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
                json(&source.volumes.refresh(&what).await)
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are GET /status, GET /pulls, POST /pulls/cancel and POST /refresh\n".to_owned(),
        ),
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => text(StatusCode::OK, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// The state of the plugin that uses this state directory.
///
/// # Errors
/// No plugin is running, or it does not answer.
pub async fn status(state_dir: &Path) -> anyhow::Result<NodeStatus> {
    ask(state_dir, Method::GET, "/status", String::new()).await
}

/// The pulls under way of the plugin that uses this state directory.
///
/// # Errors
/// No plugin is running, or it does not answer.
pub async fn pulls(state_dir: &Path) -> anyhow::Result<Vec<PullUnderWay>> {
    ask(state_dir, Method::GET, "/pulls", String::new()).await
}

/// Ends the pulls of an image, which is named by digest or reference, and returns them.
///
/// # Errors
/// No plugin is running, or it does not answer.
pub async fn cancel(state_dir: &Path, image: &str) -> anyhow::Result<Vec<PullUnderWay>> {
    ask(state_dir, Method::POST, "/pulls/cancel", image.to_owned()).await
}

/// Asks for the tags that volumes follow: of the volume or the image that `what` names, or all if it is empty. Returns how
/// these volumes stand.
///
/// # Errors
/// No plugin is running, or it does not answer.
pub async fn refresh(state_dir: &Path, what: &str) -> anyhow::Result<Vec<FollowedVolume>> {
    ask(state_dir, Method::POST, "/refresh", what.to_owned()).await
}

async fn ask<T: DeserializeOwned>(
    state_dir: &Path,
    method: Method,
    path: &str,
    body: String,
) -> anyhow::Result<T> {
    let socket = path_in(state_dir);
    let stream = UnixStream::connect(&socket).await.with_context(|| {
        format!(
            "no node plugin answers at {}; run this where it runs, with its --state-dir",
            socket.display()
        )
    })?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "plugin")
        .body(Full::new(Bytes::from(body)))?;
    let asking = async {
        let response = client.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(
            status == StatusCode::OK,
            "the plugin answered {status}: {}",
            String::from_utf8_lossy(&body).trim()
        );
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::select! {
        biased;
        answered = asking => answered,
        closed = connection => Err(anyhow::anyhow!("the plugin closed the connection: {closed:?}")),
        () = tokio::time::sleep(PATIENCE) => Err(anyhow::anyhow!(
            "the plugin did not answer within {} s; `kubectl logs` of it, and the kernel log of the node's disk, say why",
            PATIENCE.as_secs()
        )),
    }
}
