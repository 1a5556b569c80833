//! Blobs across connections that fail.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::script::{Ending, Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::{Pace, SourceError};

pub(super) fn content() -> Vec<u8> {
    (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub(super) fn descriptor() -> Descriptor {
    let content = content();
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest: Digest::of(&content),
        size: content.len() as u64,
        annotations: Default::default(),
    }
}

async fn read(host: &str) -> Result<Vec<u8>, SourceError> {
    read_from(anonymous(host)).await
}

async fn read_from(source: Arc<dyn Source>) -> Result<Vec<u8>, SourceError> {
    let stream = source.blob(&descriptor()).await?;
    let chunks: Vec<Bytes> = stream.try_collect().await?;
    Ok(chunks.concat())
}

/// What a server that knows ranges answers.
fn ranged(request: &Seen) -> Reply {
    let content = content();
    match request.range() {
        None => Reply::new(200, content),
        Some(first) => {
            let range = format!("bytes {first}-{}/{}", content.len() - 1, content.len());
            Reply::new(206, &content[first..]).header("Content-Range", range)
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_resumed_at_the_byte_reached() {
    let server = Script::start(|request, before| match before {
        0 => ranged(request).ending(Ending::Cut(300_000)),
        1 => Reply::new(503, ""),
        2 => ranged(request).ending(Ending::Stall(200_000)),
        _ => ranged(request),
    })
    .await;
    let source = impatient(&server.host, Duration::from_secs(5));
    assert!(read_from(source).await.unwrap() == content());
    let ranges: Vec<_> = server.seen().iter().map(Seen::range).collect();
    assert_eq!(ranges, [None, Some(300_000), Some(300_000), Some(500_000)]);
}

#[tokio::test]
async fn many_short_connections_make_progress() {
    let server = Script::start(|request, _| {
        let reply = ranged(request);
        let length = reply.body.len();
        if length > 50_000 { reply.ending(Ending::Cut(50_000)) } else { reply }
    })
    .await;
    assert!(read(&server.host).await.unwrap() == content());
    assert_eq!(server.seen().len(), 20);
}

#[tokio::test]
async fn a_server_without_ranges_sends_all_again() {
    let server = Script::start(|_, before| match before {
        0 => Reply::new(200, content()).ending(Ending::Cut(300_000)),
        _ => Reply::new(200, content()),
    })
    .await;
    assert!(read(&server.host).await.unwrap() == content());
}

#[tokio::test]
async fn a_range_from_an_earlier_byte_is_used_from_the_right_one() {
    let server = Script::start(|request, before| {
        if before == 0 {
            return ranged(request).ending(Ending::Cut(300_000));
        }
        let content = content();
        let range = format!("bytes 262144-{}/{}", content.len() - 1, content.len());
        Reply::new(206, &content[262_144..]).header("Content-Range", range)
    })
    .await;
    assert!(read(&server.host).await.unwrap() == content());
}

/// A server that breaks off after 300,000 bytes, and answers a range by `answer`.
async fn with_range(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Script {
    Script::start(move |request, before| match (before, request.range()) {
        (0, _) => ranged(request).ending(Ending::Cut(300_000)),
        (_, Some(_)) => answer(request),
        (_, None) => Reply::new(200, content()),
    })
    .await
}

#[tokio::test]
async fn where_a_range_is_refused_all_is_asked_for() {
    for status in [400, 401, 403, 404, 405, 416, 501] {
        let server = with_range(move |_| Reply::new(status, "no")).await;
        assert!(read(&server.host).await.unwrap() == content(), "{status}");
        let asked: Vec<_> =
            server.seen().iter().filter(|r| r.target.contains("/blobs/")).map(Seen::range).collect();
        assert_eq!(asked, [None, Some(300_000), None], "{status}");
    }
    // What may pass is asked for again; the last attempt is one without.
    let server = with_range(|_| Reply::new(500, "")).await;
    assert!(read(&server.host).await.unwrap() == content());
    let asked: Vec<_> = server.seen().iter().map(Seen::range).collect();
    assert_eq!(asked, [None, Some(300_000), Some(300_000), None]);
}

#[tokio::test]
async fn a_range_that_leads_nowhere_is_not_used() {
    let ranges = [
        Some("bytes 300001-999999/1000000"),
        Some("bytes 300000-1000000/1000001"),
        Some("bytes 0-99999/1000000"),
        Some("nonsense"),
        None,
    ];
    for (range, length) in ranges.into_iter().zip([699_999, 700_001, 100_000, 700_000, 700_000]) {
        let server = with_range(move |_| {
            let reply = Reply::new(206, vec![b'x'; length]);
            range.into_iter().fold(reply, |reply, range| reply.header("Content-Range", range))
        })
        .await;
        assert!(read(&server.host).await.unwrap() == content(), "{range:?}");
        assert_eq!(server.seen().len(), 3, "{range:?}");
    }
}

#[tokio::test]
async fn the_rest_that_is_called_all_is_not_used() {
    let server = with_range(|request| Reply::new(200, &content()[request.range().unwrap()..])).await;
    assert!(read(&server.host).await.unwrap() == content());
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_part_may_end_before_the_blob_does() {
    let server = Script::start(|request, before| {
        if before == 0 {
            return ranged(request).ending(Ending::Cut(300_000));
        }
        let (first, content) = (request.range().unwrap(), content());
        let last = content.len().min(first + 256 * 1024) - 1;
        let range = format!("bytes {first}-{last}/*");
        Reply::new(206, &content[first..=last]).header("Content-Range", range)
    })
    .await;
    assert!(read(&server.host).await.unwrap() == content());
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn all_may_come_as_a_part() {
    for range in [Some("bytes 0-999999/1000000"), None] {
        let server = Script::start(move |_, _| {
            let reply = Reply::new(206, content());
            range.into_iter().fold(reply, |reply, range| reply.header("Content-Range", range))
        })
        .await;
        assert!(read(&server.host).await.unwrap() == content());
    }
    let server = Script::start(|_, _| {
        Reply::new(206, &content()[1..]).header("Content-Range", "bytes 1-999999/1000000")
    })
    .await;
    let error = read(&server.host).await.unwrap_err();
    assert!(matches!(error, SourceError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn without_progress_it_ends() {
    let server = Script::start(|request, before| match before {
        0 => ranged(request).ending(Ending::Cut(300_000)),
        _ => ranged(request).ending(Ending::Cut(0)),
    })
    .await;
    let error = read(&server.host).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient, "{error}");
    assert!(error.to_string().contains(&descriptor().digest.to_string()), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_blob_of_another_size_is_corrupt() {
    let (short, long) = (content().split_off(1), [content(), vec![0]].concat());
    for (body, ending, kind) in [
        (short.clone(), Ending::Whole, Kind::Corrupt),
        (long.clone(), Ending::Whole, Kind::Corrupt),
        (long.clone(), Ending::Unannounced, Kind::Corrupt),
        (long, Ending::Endless, Kind::Corrupt),
    ] {
        let server = Script::start(move |_, _| Reply::new(200, body.clone()).ending(ending)).await;
        let error = read(&server.host).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{ending:?}: {error}");
        assert_eq!(server.seen().len(), 1);
    }
    // Without a length the end of the connection may be a break, so it is tried again.
    let server = Script::start(move |_, _| Reply::new(200, short.clone()).ending(Ending::Unannounced)).await;
    assert_eq!(read(&server.host).await.unwrap_err().kind(), Kind::Transient);
}

#[tokio::test]
async fn a_length_is_not_needed() {
    let server = Script::start(|_, _| Reply::new(200, content()).ending(Ending::Unannounced)).await;
    assert!(read(&server.host).await.unwrap() == content());
}

#[tokio::test]
async fn what_is_missing_is_said_when_opening() {
    let server = Script::start(|_, _| Reply::new(404, "")).await;
    let error = anonymous(&server.host).blob(&descriptor()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    let text = error.to_string();
    assert!(text.contains("team/app") && text.contains(&descriptor().digest.to_string()), "{text}");
}

#[tokio::test]
async fn a_token_that_expires_in_the_middle_is_renewed() {
    let server = Script::start(|request, before| {
        if request.target.starts_with("/token") {
            return Reply::new(200, format!(r#"{{"token":"t{before}"}}"#));
        }
        // Two connections of data under the first token, which then has expired.
        match (request.header("authorization"), request.range()) {
            (Some("Bearer t1"), None) => ranged(request).ending(Ending::Cut(400_000)),
            (Some("Bearer t4"), Some(400_000)) => ranged(request),
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
            }
        }
    })
    .await;
    assert!(read(&server.host).await.unwrap() == content());
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_large_blob_needs_more_than_the_lowest_rate() {
    let server =
        Script::start(|request, _| ranged(request).ending(Ending::Trickle(Duration::from_millis(1)))).await;
    let longest = Duration::from_secs(1);
    let pace = Pace { minimum: 1, longest, window: Duration::from_millis(100), patience: 2 };
    let settings = SourceSettings { pace, ..settings(&[&server.host]) };
    let source = open(&Sources::new(&settings).unwrap(), &server.host, &Credentials::none());
    let error = read_from(source).await.unwrap_err();
    let needed = content().len() as u64;
    assert!(matches!(error, SourceError::Slow { minimum, .. } if minimum == needed), "{error}");
    assert!(error.to_string().contains("--max-layer-time"), "{error}");
}

#[tokio::test]
async fn a_registry_that_trickles_is_given_up() {
    let server =
        Script::start(|request, _| ranged(request).ending(Ending::Trickle(Duration::from_millis(5)))).await;
    let pace = Pace { minimum: 10_000, window: Duration::from_secs(1), patience: 3, ..Pace::default() };
    let settings = SourceSettings { pace, ..settings(&[&server.host]) };
    let source = open(&Sources::new(&settings).unwrap(), &server.host, &Credentials::none());
    let error = read_from(source).await.unwrap_err();
    assert!(matches!(error, SourceError::Slow { minimum: 10_000, .. }), "{error}");
    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.to_string().contains("--min-transfer-rate"), "{error}");
    // Another connection may be a better one; it goes on at the byte reached.
    let ranges: Vec<_> = server.seen().iter().map(Seen::range).collect();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert!(ranges[0].is_none() && ranges[1] > Some(0) && ranges[2] > ranges[1], "{ranges:?}");
}

#[tokio::test]
async fn an_error_that_trickles_is_not_listened_to() {
    let trickle = Ending::Trickle(Duration::from_millis(50));
    let server = Script::start(move |_, _| Reply::new(500, vec![b'x'; 8000]).ending(trickle)).await;
    let document_timeout = Duration::from_millis(300);
    let mut settings = SourceSettings { document_timeout, ..settings(&[&server.host]) };
    settings.retry.attempts = 1;
    let source = open(&Sources::new(&settings).unwrap(), &server.host, &Credentials::none());
    let error = source.blob(&descriptor()).await.map(drop).unwrap_err();
    assert!(matches!(error, SourceError::Overdue { .. }), "{error}");
}
