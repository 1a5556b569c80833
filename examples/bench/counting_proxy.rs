//! A proxy in front of a registry that counts the bodies of answers, and delays each answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use anyhow::Result;

/// What has come back through a proxy.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    /// Bytes of bodies.
    pub bytes: u64,
    /// Ranges that were asked for.
    pub ranged: u64,
}

/// A running proxy; it ends with the process.
#[derive(Debug)]
pub struct CountingProxy {
    host: String,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    ranged: AtomicU64,
}

impl CountingProxy {
    /// Starts a proxy to `upstream` (`HOST:PORT`), each answer of which waits for so long.
    pub fn start(upstream: &str, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let (counts, upstream) = (Arc::<Counts>::default(), upstream.to_owned());
        let counting = Arc::clone(&counts);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (counts, upstream) = (Arc::clone(&counting), upstream.clone());
                // A connection that breaks is its client's to complain about.
                std::thread::spawn(move || relay(client, &upstream, &counts, delay));
            }
        });
        Ok(Self { host, counts })
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What has passed since the last call.
    pub fn take(&self) -> Passed {
        Passed { bytes: self.counts.bytes.swap(0, SeqCst), ranged: self.counts.ranged.swap(0, SeqCst) }
    }
}

/// Requests and answers in turn; none of the clients sends a second request before the answer to the first.
fn relay(client: TcpStream, upstream: &str, counts: &Counts, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = (BufReader::new(client.try_clone()?), client);
    let (mut from_server, mut to_server) = (BufReader::new(server.try_clone()?), server);
    loop {
        let request = head(&mut from_client)?;
        if request.is_empty() {
            return Ok(());
        }
        to_server.write_all(&request)?;
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some(ranges) = text.lines().find_map(|line| line.strip_prefix("range: bytes=")) {
            counts.ranged.fetch_add(ranges.split(',').count() as u64, SeqCst);
        }
        let answer = head(&mut from_server)?;
        std::thread::sleep(delay);
        to_client.write_all(&answer)?;
        if text.starts_with("head ") {
            continue;
        }
        let said = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let length = said.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        // Without a length the body ends with the connection, or is chunked: the rest is passed on as it comes.
        let body = from_server.by_ref().take(length.unwrap_or(u64::MAX));
        pass(body, &mut to_client, &counts.bytes)?;
        if length.is_none() {
            return Ok(());
        }
    }
}

fn head(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if from.read_until(b'\n', &mut head)? == 0 {
            break;
        }
    }
    Ok(head)
}

fn pass(mut from: impl Read, to: &mut impl Write, count: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
        count.fetch_add(read as u64, SeqCst);
    }
}
