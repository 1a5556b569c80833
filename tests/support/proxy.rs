//! A TCP proxy that counts what goes through it, and lets it through no faster or further than told: to see how often
//! something is fetched or sent, and to be in the middle of a pull or push for certain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy; it ends with the test's runtime.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    flow: Arc<Flow>,
}

/// What has come back and what may, over all connections.
#[derive(Debug)]
struct Flow {
    passed: AtomicU64,
    /// Bytes per second that come back through each connection; 0 for no limit.
    rate: AtomicU64,
    /// How many bytes may have passed.
    until: AtomicU64,
    /// The same of what clients send.
    sent: AtomicU64,
    sent_until: AtomicU64,
}

impl Proxy {
    /// Starts a proxy to `upstream` (`HOST:PORT`).
    pub async fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let flow = Flow {
            passed: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            until: AtomicU64::new(u64::MAX),
            sent: AtomicU64::new(0),
            sent_until: AtomicU64::new(u64::MAX),
        };
        let flow = Arc::new(flow);
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&flow));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (upstream, flow) = (upstream.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(upstream).await {
                        flow.relay(client, server).await;
                    }
                });
            }
        });
        Self { address, flow }
    }

    /// Bytes that have come back through it.
    pub fn passed(&self) -> u64 {
        self.flow.passed.load(SeqCst)
    }

    /// Bytes that clients have sent through it.
    pub fn sent(&self) -> u64 {
        self.flow.sent.load(SeqCst)
    }

    /// Lets clients send so many bytes more, and holds what they send then, until [`Proxy::take_all`].
    pub async fn take(&self, bytes: u64) {
        let end = self.sent() + bytes;
        self.flow.sent_until.store(end, SeqCst);
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.sent() < end {
            assert!(Instant::now() < deadline, "{} of {end} bytes", self.sent());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Clients may send what they like again.
    pub fn take_all(&self) {
        self.flow.sent_until.store(u64::MAX, SeqCst);
    }

    /// From now on no more than `rate` bytes per second and connection; 0 lifts the limit. What was held goes on.
    pub fn throttle(&self, rate: u64) {
        self.flow.rate.store(rate, SeqCst);
        self.flow.until.store(u64::MAX, SeqCst);
    }

    /// Lets so many bytes more through, and holds everything then, however slow the test is: until it is throttled
    /// anew.
    pub async fn pass(&self, bytes: u64) {
        let end = self.passed() + bytes;
        self.flow.until.store(end, SeqCst);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.passed() < end {
            assert!(Instant::now() < deadline, "{} of {end} bytes", self.passed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Flow {
    async fn relay(&self, client: TcpStream, server: TcpStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                while self.sent.load(SeqCst) >= self.sent_until.load(SeqCst) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                if to_server.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                self.sent.fetch_add(read as u64, SeqCst);
            }
            let _ = to_server.shutdown().await;
        };
        let down = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                while self.passed.load(SeqCst) >= self.until.load(SeqCst) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                self.passed.fetch_add(read as u64, SeqCst);
                let rate = self.rate.load(SeqCst);
                if rate > 0 {
                    tokio::time::sleep(Duration::from_secs_f64(read as f64 / rate as f64)).await;
                }
            }
            let _ = to_client.shutdown().await;
        };
        tokio::join!(up, down);
    }
}
