//! Registries that serve the same images, each in its own temper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use crate::images::Catalogue;

/// How a registry behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// As it should.
    Fair,
    /// Blobs come at so many bytes per second.
    Slow(u64),
    /// No answer.
    Silent,
    /// The connection ends in the middle of a blob.
    Cut,
    /// Wrong bytes.
    Lying,
    /// This status and nothing else.
    Status(u16),
    /// A page for people, with status 200.
    Page,
}

/// The tempers of a bad registry.
pub const BAD: [Temper; 9] = [
    Temper::Slow(2_000),
    Temper::Slow(200_000),
    Temper::Silent,
    Temper::Cut,
    Temper::Lying,
    Temper::Status(429),
    Temper::Status(500),
    Temper::Status(404),
    Temper::Page,
];

/// A running registry; it ends with the runtime.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    temper: Arc<Mutex<Temper>>,
}

/// The registries of a soak.
#[derive(Debug)]
pub struct Registries {
    pub catalogue: Arc<Catalogue>,
    /// Always fair.
    pub fair: Registry,
    /// Of any temper.
    pub moody: Vec<Registry>,
}

impl Registries {
    /// One that is fair and three that are not.
    pub async fn start() -> Self {
        let catalogue = Arc::new(Catalogue::make());
        let fair = Registry::start(&catalogue).await;
        let mut moody = Vec::new();
        for _ in 0..3 {
            moody.push(Registry::start(&catalogue).await);
        }
        Self { catalogue, fair, moody }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Registry> {
        self.moody.iter().chain([&self.fair])
    }
}

impl Registry {
    async fn start(catalogue: &Arc<Catalogue>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let temper = Arc::new(Mutex::new(Temper::Fair));
        let (catalogue, mood) = (Arc::clone(catalogue), Arc::clone(&temper));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (catalogue, mood) = (Arc::clone(&catalogue), Arc::clone(&mood));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let temper = *mood.lock().expect("no panic");
                    answer(request, Arc::clone(&catalogue), temper)
                });
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(serving.serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { address, temper }
    }

    /// `HOST:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// How image `number` is called here.
    pub fn reference(&self, number: usize) -> String {
        format!("{}/soak:{number}", self.address)
    }

    /// From now on, for what is asked from now on.
    pub fn be(&self, temper: Temper) {
        *self.temper.lock().expect("no panic") = temper;
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(
    request: Request<Incoming>,
    catalogue: Arc<Catalogue>,
    temper: Temper,
) -> Result<Response<Body>, Infallible> {
    match temper {
        Temper::Silent => std::future::pending::<()>().await,
        Temper::Status(status) => return Ok(response(status, "text/plain", whole(b"not today".to_vec()))),
        Temper::Page => return Ok(response(200, "text/html", whole(b"<html>please log in</html>".to_vec()))),
        _ => {}
    }
    let path = request.uri().path();
    let Some((_, rest)) = path.split_once("/soak/") else {
        return Ok(response(200, "application/json", whole(b"{}".to_vec())));
    };
    let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
    let digest = match name.parse::<usize>() {
        Ok(number) if kind == "manifests" && number < crate::images::COUNT => {
            catalogue.image(number).manifest.to_string()
        }
        _ => name.to_owned(),
    };
    let Some(content) = catalogue.blob(&digest) else {
        return Ok(response(404, "text/plain", whole(b"no such thing".to_vec())));
    };
    let length = content.len();
    let (media_type, body) = match kind {
        "manifests" => ("application/vnd.oci.image.manifest.v1+json", whole(content)),
        _ => ("application/octet-stream", blob(content, temper)),
    };
    let mut answer =
        response(200, media_type, if request.method() == "HEAD" { whole(Vec::new()) } else { body });
    answer.headers_mut().insert("content-length", length.into());
    answer.headers_mut().insert("docker-content-digest", digest.parse().expect("a header"));
    Ok(answer)
}

fn response(status: u16, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert("content-type", media_type.parse().expect("a header"));
    response
}

fn whole(content: Vec<u8>) -> Body {
    pieces(vec![Ok(content)], None)
}

fn blob(mut content: Vec<u8>, temper: Temper) -> Body {
    const PIECE: usize = 16 << 10;
    let middle = content.len() / 2;
    let mut cut = false;
    match temper {
        Temper::Lying if !content.is_empty() => content[middle] ^= 1,
        Temper::Cut => {
            content.truncate(middle);
            cut = true;
        }
        _ => {}
    }
    let mut all: Vec<std::io::Result<Vec<u8>>> =
        content.chunks(PIECE).map(|piece| Ok(piece.to_vec())).collect();
    if cut {
        all.push(Err(std::io::Error::other("cut")));
    }
    let pause = match temper {
        Temper::Slow(rate) => Some(Duration::from_secs_f64(PIECE as f64 / rate as f64)),
        _ => None,
    };
    pieces(all, pause)
}

fn pieces(all: Vec<std::io::Result<Vec<u8>>>, pause: Option<Duration>) -> Body {
    let frames = stream::iter(all).then(move |piece| async move {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        piece.map(|bytes| Frame::data(Bytes::from(bytes)))
    });
    BoxBody::new(StreamBody::new(Box::pin(frames)))
}
