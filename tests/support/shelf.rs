//! A registry of one image that serves ranges as a test likes, paces each connection, and counts what it sends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use composefs_csi::oci::digest::Digest;
use tokio::io::{AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use super::images::Layout;

/// What is made of a `Range` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranges {
    /// 206 with the bytes that were asked for.
    Served,
    /// 200 with all bytes.
    Ignored,
    /// Ignored but for the first so many requests.
    IgnoredAfter(usize),
    /// This status.
    Refused(u16),
    /// 206 with bytes that begin one later.
    Other,
    /// 206 with the right bytes, and no word of which they are.
    Unsaid,
    /// Served to one connection at a time; 429 to others.
    ToOne,
    /// Served, but each connection breaks after so many bytes.
    Cut(usize),
}

/// A running registry; it ends with the test's runtime.
#[derive(Debug)]
pub struct Shelf {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    manifest: (String, Vec<u8>),
    /// Other documents of the layout, by digest and by tag.
    documents: HashMap<String, (String, Vec<u8>)>,
    blobs: HashMap<String, Vec<u8>>,
    ranges: Mutex<Ranges>,
    /// Bytes per second of each connection; 0 for no limit.
    pace: AtomicU64,
    /// Bytes of blobs that were sent, configs left out.
    sent: AtomicU64,
    /// How many blobs are being sent, and the most at a time.
    sending: AtomicUsize,
    most: AtomicUsize,
    /// Whose every byte is sent inverted, once.
    wrong: Mutex<Option<Range<usize>>>,
    asked: Mutex<Vec<Option<String>>>,
}

impl Shelf {
    /// Serves the image that the layout has under the tag `latest`, whose layers are larger than 4 KiB, by any name that no
    /// other document of the layout has.
    pub async fn start(layout: &Layout) -> Self {
        let read = |path: String| std::fs::read(layout.path().join(path)).expect("a file of the layout");
        let index: serde_json::Value = serde_json::from_slice(&read("index.json".into())).expect("an index");
        let entry = &index["manifests"][0];
        let digest = entry["digest"].as_str().expect("a digest").to_owned();
        let media_type = entry["mediaType"].as_str().expect("a type").to_owned();
        let manifest = read(format!("blobs/{}", digest.replace(':', "/")));
        let blobs = std::fs::read_dir(layout.path().join("blobs/sha256")).expect("blobs");
        let blobs = blobs.map(|blob| {
            let bytes = std::fs::read(blob.expect("a blob").path()).expect("a blob");
            (Digest::of(&bytes).to_string(), bytes)
        });
        let blobs: HashMap<String, Vec<u8>> = blobs.collect();
        let mut documents = HashMap::new();
        for (digest, bytes) in blobs.iter().filter(|(other, _)| **other != digest) {
            let document: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
            if let Some(media_type) = document.as_ref().and_then(|document| document["mediaType"].as_str()) {
                documents.insert(digest.clone(), (media_type.to_owned(), bytes.clone()));
            }
        }
        for entry in index["manifests"].as_array().expect("a list") {
            let tag = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
            let document = documents.get(entry["digest"].as_str().unwrap_or_default());
            if let Some(document) = document.cloned() {
                documents.insert(tag.to_owned(), document);
            }
        }
        let shared = Arc::new(Shared {
            manifest: (media_type, manifest),
            documents,
            blobs,
            ranges: Mutex::new(Ranges::Served),
            pace: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sending: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            wrong: Mutex::new(None),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    // The client may go whenever it likes.
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        Self { address, shared }
    }

    /// The image by some name.
    pub fn reference(&self) -> String {
        format!("{}/team/app:1", self.address)
    }

    /// From now on.
    pub fn make_of_ranges(&self, ranges: Ranges) {
        *self.shared.ranges.lock().expect("a lock") = ranges;
    }

    /// From now on no more than this many bytes per second and connection; 0 lifts the limit.
    pub fn pace(&self, rate: u64) {
        self.shared.pace.store(rate, SeqCst);
    }

    /// The next time that these bytes of a layer are sent, they are others.
    pub fn lie_about(&self, bytes: Range<usize>) {
        *self.shared.wrong.lock().expect("a lock") = Some(bytes);
    }

    /// Bytes of layers that were sent.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(SeqCst)
    }

    /// The most layers, or parts of them, that were sent at a time; counted anew from here.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.swap(0, SeqCst)
    }

    /// The ranges of layers that were asked for so far, and forgotten.
    pub fn take_asked(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.shared.asked.lock().expect("a lock"))
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(first) = lines.next_line().await? {
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut range = None;
        while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("range")
            {
                range = Some(value.trim().to_owned());
            }
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/referrers/") {
            // Before it knew of the API, a registry had a tag for them.
            answer(&mut writer, 404, "", 0).await?;
        } else if path.contains("/manifests/") {
            let (media_type, bytes) = shared.documents.get(last).unwrap_or(&shared.manifest);
            let digest = Digest::of(bytes);
            let head = format!("content-type: {media_type}\r\ndocker-content-digest: {digest}\r\n");
            answer(&mut writer, 200, &head, bytes.len()).await?;
            if method != "HEAD" {
                writer.write_all(bytes).await?;
            }
        } else if let Some(bytes) = shared.blobs.get(last) {
            if !send(&mut writer, shared, bytes, range).await? {
                return Ok(());
            }
        } else {
            answer(&mut writer, 404, "", 0).await?;
        }
    }
    Ok(())
}

async fn answer(
    writer: &mut (impl AsyncWrite + Unpin),
    status: u16,
    head: &str,
    length: usize,
) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} x\r\n{head}content-length: {length}\r\n\r\n");
    writer.write_all(head.as_bytes()).await
}

/// `bytes=N-M` and `bytes=N-`.
fn part(range: &str, size: usize) -> Option<Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = if last.is_empty() { size } else { last.parse::<usize>().ok()? + 1 };
    let part = first.parse().ok()?..end.min(size);
    (!part.is_empty()).then_some(part)
}

/// Sends a blob, or what is asked for of it. Says whether the connection is of use after that.
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
    bytes: &[u8],
    range: Option<String>,
) -> std::io::Result<bool> {
    let is_layer = bytes.len() > 4 << 10;
    let mut number = 0;
    if is_layer {
        let mut asked = shared.asked.lock().expect("a lock");
        asked.push(range.clone());
        number = asked.iter().flatten().count();
    }
    let manner = match *shared.ranges.lock().expect("a lock") {
        Ranges::IgnoredAfter(count) if number > count => Ranges::Ignored,
        Ranges::IgnoredAfter(_) => Ranges::Served,
        other => other,
    };
    let part = range.and_then(|range| part(&range, bytes.len())).filter(|_| is_layer);
    let now = shared.sending.fetch_add(usize::from(is_layer), SeqCst) + 1;
    let mut leaving = Some(Leaving(&shared.sending, usize::from(is_layer)));
    let (size, mut stop) = (bytes.len(), usize::MAX);
    let part = match (manner, part) {
        (_, None) | (Ranges::Ignored, _) => {
            answer(writer, 200, "", size).await?;
            0..size
        }
        (Ranges::Refused(status), _) => return answer(writer, status, "", 0).await.map(|()| true),
        (Ranges::ToOne, _) if now > 1 => return answer(writer, 429, "", 0).await.map(|()| true),
        (Ranges::Unsaid, Some(part)) => {
            answer(writer, 206, "", part.len()).await?;
            part
        }
        (manner, Some(part)) => {
            let later = usize::from(manner == Ranges::Other);
            if let Ranges::Cut(after) = manner {
                stop = after;
            }
            let (start, end) = (part.start + later, part.end);
            let stated = format!("content-range: bytes {start}-{}/{size}\r\n", end - 1);
            answer(writer, 206, &stated, end - start).await?;
            start..end
        }
    };
    if is_layer {
        shared.most.fetch_max(now, SeqCst);
    }
    let mut due = Instant::now();
    let mut done = 0;
    for (number, chunk) in bytes[part.clone()].chunks(16 << 10).enumerate() {
        let mut chunk = chunk.to_vec();
        let at = part.start + number * (16 << 10);
        {
            let mut wrong = shared.wrong.lock().expect("a lock");
            let lies =
                is_layer && wrong.as_ref().is_some_and(|wrong| (at..at + chunk.len()).contains(&wrong.start));
            if lies && let Some(wrong) = wrong.take() {
                let end = wrong.end.min(at + chunk.len());
                chunk[wrong.start - at..end - at].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        if done + chunk.len() > stop {
            return Ok(false);
        }
        done += chunk.len();
        if done == part.len() {
            // Whoever has the last of it may ask for more at once, before the pace lets this one go.
            drop(leaving.take());
        }
        writer.write_all(&chunk).await?;
        if is_layer {
            shared.sent.fetch_add(chunk.len() as u64, SeqCst);
        }
        let rate = shared.pace.load(SeqCst);
        if rate > 0 {
            due = due.max(Instant::now() - Duration::from_millis(50))
                + Duration::from_secs_f64(chunk.len() as f64 / rate as f64);
            sleep_until(due).await;
        }
    }
    Ok(true)
}

/// One who is sent something no more.
struct Leaving<'a>(&'a AtomicUsize, usize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, SeqCst);
    }
}
