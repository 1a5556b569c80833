//! A long line to a registry: a proxy that holds back each request, and paces and counts what comes back on each
//! connection. Deterministic where traffic control of the kernel is not, and needs no network namespace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// A running line; it ends with the program.
#[derive(Debug)]
pub struct Line {
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
}

impl Line {
    /// A line to `upstream` with this round trip and so many bytes per second on each connection; 0 for no limit.
    pub fn start(upstream: &str, round_trip: Duration, rate: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, passed) = (listener.local_addr()?, Arc::<AtomicU64>::default());
        let (upstream, counter) = (upstream.to_owned(), Arc::clone(&passed));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, counter) = (upstream.clone(), Arc::clone(&counter));
                thread::spawn(move || {
                    // The handshake is a round trip as well.
                    thread::sleep(round_trip);
                    if let Ok(server) = TcpStream::connect(upstream) {
                        relay(client, server, round_trip, rate, &counter);
                    }
                });
            }
        });
        Ok(Self { address, passed })
    }

    /// Bytes that have come back through it.
    pub fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }
}

/// Either end may go at any time, which ends both directions.
fn relay(client: TcpStream, server: TcpStream, round_trip: Duration, rate: u64, counter: &AtomicU64) {
    let (Ok(mut up_from), Ok(mut up_to)) = (client.try_clone(), server.try_clone()) else { return };
    let up = thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = up_from.read(&mut buffer) {
            thread::sleep(round_trip);
            if up_to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = up_to.shutdown(std::net::Shutdown::Both);
    });
    let (mut from, mut to, mut buffer) = (server, client, vec![0; 64 << 10]);
    let mut due = Instant::now();
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        counter.fetch_add(read as u64, Relaxed);
        if rate > 0 {
            // What was not sent in a pause is not made up for.
            due = due.max(Instant::now() - Duration::from_millis(20))
                + Duration::from_secs_f64(read as f64 / rate as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = up.join();
}
