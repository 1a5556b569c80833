//! A TCP proxy that counts what comes back through it, and lets it through no faster than told: to see how
//! often something is fetched, and to be in the middle of a pull for certain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy; it ends with the test's runtime.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
    /// Bytes per second that come back through each connection; 0 for no limit.
    rate: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy to `upstream` (`HOST:PORT`).
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (passed, rate) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (upstream, count, limit) = (upstream.to_owned(), Arc::clone(&passed), Arc::clone(&rate));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, count, limit) = (upstream.clone(), Arc::clone(&count), Arc::clone(&limit));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(upstream).await {
                        relay(client, server, &count, &limit).await;
                    }
                });
            }
        });
        Self { address, passed, rate }
    }

    /// Bytes that have come back through it.
    pub fn passed(&self) -> u64 {
        self.passed.load(SeqCst)
    }

    /// From now on no more than `rate` bytes per second and connection; 0 lifts the limit.
    pub fn throttle(&self, rate: u64) {
        self.rate.store(rate, SeqCst);
    }
}

async fn relay(client: TcpStream, server: TcpStream, count: &AtomicU64, limit: &AtomicU64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            count.fetch_add(read as u64, SeqCst);
            let rate = limit.load(SeqCst);
            if rate > 0 {
                tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}
