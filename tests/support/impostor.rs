//! An HTTP server that answers as a test likes: a registry that lies, or treats its users differently.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// The user who says so by HTTP Basic.
    pub user: Option<String>,
    /// The first and the last byte of a closed range.
    pub range: Option<(usize, usize)>,
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub after: Duration,
}

/// A running server; it ends with the test's runtime.
#[derive(Debug)]
pub struct Impostor {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    waiting: Arc<Waiting>,
}

/// Requests that wait for their answer ([`Answer::after`]): now, and the most at a time.
#[derive(Debug, Default)]
struct Waiting {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Answer {
    /// This status and nothing more.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// These bytes.
    pub fn body(media_type: &str, body: &[u8]) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", media_type.to_owned())],
            body: body.to_vec(),
            ..Self::default()
        }
    }

    /// With a header.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Impostor {
    /// Starts a server that answers by `answer`.
    pub async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (log, answer) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(answer));
        let waiting = Arc::<Waiting>::default();
        let (seen, counts) = (Arc::clone(&log), Arc::clone(&waiting));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, counts, answer) = (Arc::clone(&seen), Arc::clone(&counts), Arc::clone(&answer));
                tokio::spawn(async move {
                    let _ = serve(stream, (&seen, &counts), &*answer).await;
                });
            }
        });
        Self { address, log, waiting }
    }

    /// The most requests that waited for their answer at a time; counted anew from here.
    pub fn most_waiting(&self) -> usize {
        self.waiting.most.swap(0, SeqCst)
    }

    /// What was asked for so far that holds `word`, as `METHOD PATH`, and forgotten.
    pub fn take(&self, word: &str) -> Vec<String> {
        let log = std::mem::take(&mut *self.log.lock().expect("the log"));
        let named = log.into_iter().filter(|asked| asked.path.contains(word));
        named.map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }

    /// The requests so far, and forgotten.
    pub fn take_all(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.log.lock().expect("the log"))
    }

    /// Paths asked for so far that hold `word`.
    pub fn asked(&self, word: &str) -> usize {
        self.log.lock().expect("the log").iter().filter(|asked| asked.path.contains(word)).count()
    }
}

async fn serve(
    mut stream: TcpStream,
    (log, waiting): (&Mutex<Vec<Asked>>, &Waiting),
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let mut asked: Option<Asked> = None;
    while let Some(line) = lines.next_line().await? {
        let Some(asked) = &mut asked else {
            let mut words = line.split(' ').map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            asked = Some(Asked { method: next(), path: next(), user: None, range: None });
            continue;
        };
        if let Some(basic) = line.strip_prefix("authorization: Basic ") {
            let decoded = base64::engine::general_purpose::STANDARD.decode(basic).unwrap_or_default();
            let text = String::from_utf8_lossy(&decoded).into_owned();
            asked.user = text.split_once(':').map(|(user, _)| user.to_owned());
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            let ends = range.split_once('-').map(|(first, last)| (first.parse(), last.parse()));
            asked.range = ends.and_then(|(first, last)| Some((first.ok()?, last.ok()?)));
        }
        if line.is_empty() {
            log.lock().expect("the log").push(asked.clone());
            let given = answer(asked);
            if !given.after.is_zero() {
                waiting.most.fetch_max(waiting.now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(given.after).await;
                waiting.now.fetch_sub(1, SeqCst);
            }
            let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", given.status);
            head += &format!("content-length: {}\r\n", given.body.len());
            for (name, value) in &given.headers {
                head += &format!("{name}: {value}\r\n");
            }
            writer.write_all(format!("{head}\r\n").as_bytes()).await?;
            if asked.method != "HEAD" {
                writer.write_all(&given.body).await?;
            }
            return writer.shutdown().await;
        }
    }
    Ok(())
}
