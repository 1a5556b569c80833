//! Parts of blobs, and servers that do not serve them as asked.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::blob::{content, descriptor};
use super::script::{Ending, Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::{Ranged, SourceError};

const START: u64 = 200_000;
const END: u64 = 700_000;

/// The answer of a server that knows ranges.
fn part_of(request: &Seen) -> Reply {
    let (content, part) = (content(), request.part().unwrap());
    let range = format!("bytes {}-{}/{}", part.start, part.end - 1, content.len());
    Reply::new(206, &content[part]).header("Content-Range", range)
}

async fn ask(host: &str) -> Result<Ranged, SourceError> {
    anonymous(host).blob_range(&descriptor(), START..END).await
}

async fn read(stream: crate::oci::BlobStream) -> Result<Vec<u8>, SourceError> {
    let chunks: Vec<Bytes> = stream.try_collect().await?;
    Ok(chunks.concat())
}

fn wanted() -> Vec<u8> {
    content()[START as usize..END as usize].to_vec()
}

#[tokio::test]
async fn one_closed_range_is_asked_for() {
    let server = Script::start(|request, _| part_of(request)).await;
    let Ranged::Part(stream) = ask(&server.host).await.unwrap() else { panic!() };
    assert!(read(stream).await.unwrap() == wanted());
    let asked: Vec<_> = server.seen().iter().map(|seen| seen.header("range").unwrap().to_owned()).collect();
    assert_eq!(asked, ["bytes=200000-699999"]);
}

#[tokio::test]
async fn the_first_range_is_asked_for_although_it_begins_at_the_first_byte() {
    let server = Script::start(|request, _| part_of(request)).await;
    let answer = anonymous(&server.host).blob_range(&descriptor(), 0..10).await.unwrap();
    let Ranged::Part(stream) = answer else { panic!() };
    assert_eq!(read(stream).await.unwrap(), content()[..10]);
    assert_eq!(server.seen()[0].header("range"), Some("bytes=0-9"));
}

#[tokio::test]
async fn a_part_goes_on_at_the_byte_reached() {
    let server = Script::start(|request, before| match before {
        0 => part_of(request).ending(Ending::Cut(100_000)),
        1 => Reply::new(502, ""),
        _ => part_of(request),
    })
    .await;
    let Ranged::Part(stream) = ask(&server.host).await.unwrap() else { panic!() };
    assert!(read(stream).await.unwrap() == wanted());
    let asked: Vec<_> = server.seen().iter().map(|seen| seen.part().unwrap()).collect();
    assert_eq!(asked, [200_000..700_000, 300_000..700_000, 300_000..700_000]);
}

#[tokio::test]
async fn servers_may_send_less_at_a_time_or_more_than_asked() {
    // Bytes before the range and at most so many in one answer.
    for (before, at_most) in [(0, 150_000), (50_000, usize::MAX), (0, usize::MAX)] {
        let server = Script::start(move |request, _| {
            let (content, part) = (content(), request.part().unwrap());
            let first = part.start - before;
            let end = first.saturating_add(at_most).min(content.len());
            let range = format!("bytes {first}-{}/{}", end - 1, content.len());
            Reply::new(206, &content[first..end]).header("Content-Range", range)
        })
        .await;
        let Ranged::Part(stream) = ask(&server.host).await.unwrap() else { panic!() };
        assert!(read(stream).await.unwrap() == wanted(), "{before} {at_most}");
        assert_eq!(server.seen().len(), if at_most == usize::MAX { 1 } else { 4 });
    }
}

#[tokio::test]
async fn the_answer_of_a_server_that_ignores_ranges_is_the_whole_blob() {
    let server = Script::start(|request, before| match before {
        0 => Reply::new(200, content()).ending(Ending::Cut(400_000)),
        // It resumes like any other.
        _ => {
            let first = request.range().unwrap();
            let range = format!("bytes {first}-999999/1000000");
            Reply::new(206, &content()[first..]).header("Content-Range", range)
        }
    })
    .await;
    let source = anonymous(&server.host);
    let Ranged::Whole(stream) = source.blob_range(&descriptor(), START..END).await.unwrap() else { panic!() };
    assert!(read(stream).await.unwrap() == content());
    assert_eq!(server.seen().len(), 2);
    assert!(source.has_ranges(), "it may be a cache that has no copy yet");
}

#[tokio::test]
async fn a_host_that_refuses_ranges_is_asked_for_none_for_a_while() {
    for status in [400, 416, 501, 405] {
        let server = Script::start(move |request, _| match request.part() {
            Some(_) => Reply::new(status, ""),
            None => Reply::new(200, content()),
        })
        .await;
        let source = anonymous(&server.host);
        assert!(source.has_ranges());
        let answer = source.blob_range(&descriptor(), START..END).await.unwrap();
        assert!(matches!(answer, Ranged::Refused(_)), "{status}: {answer:?}");
        assert!(!source.has_ranges(), "{status}");
        assert!(read(source.blob(&descriptor()).await.unwrap()).await.unwrap() == content());
    }
}

#[tokio::test]
async fn another_part_or_one_that_says_nothing_of_itself_is_refused() {
    let stated = |range: &'static str| {
        move |_: &Seen, _: usize| Reply::new(206, wanted()).header("Content-Range", range)
    };
    for range in ["bytes 200001-699999/1000000", "bytes 0-9/1000000", "bytes */1000000", "nonsense"] {
        let server = Script::start(stated(range)).await;
        assert!(matches!(ask(&server.host).await.unwrap(), Ranged::Refused(_)), "{range}");
    }
    for headers in
        [vec![], vec![("Content-Range", "bytes 200000-699999/1000000"), ("Content-Encoding", "gzip")]]
    {
        let server = Script::start(move |_, _| {
            headers.iter().fold(Reply::new(206, wanted()), |reply, (name, value)| reply.header(name, *value))
        })
        .await;
        assert!(matches!(ask(&server.host).await.unwrap(), Ranged::Refused(_)));
    }
    let server = Script::start(stated("bytes 200000-699999/999999")).await;
    assert_eq!(ask(&server.host).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn what_refuses_the_blob_refuses_its_parts() {
    for (status, kind) in [(404, Kind::NotFound), (403, Kind::Denied), (503, Kind::Transient)] {
        let server = Script::start(move |_, _| Reply::new(status, "")).await;
        assert_eq!(ask(&server.host).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn a_server_that_changes_its_mind_about_ranges_ends_the_part() {
    let server = Script::start(|request, before| match before {
        0 => part_of(request).ending(Ending::Cut(100_000)),
        _ => Reply::new(200, content()),
    })
    .await;
    let Ranged::Part(stream) = ask(&server.host).await.unwrap() else { panic!() };
    let error = read(stream).await.unwrap_err();
    assert!(matches!(error, SourceError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn where_a_registry_redirects_to_is_asked_until_it_refuses() {
    let storage = Script::start(|request, before| match before {
        // The time of the first URL is over, once.
        2 => Reply::new(403, "expired"),
        _ if request.header("authorization").is_some() => Reply::new(400, "two sorts of authorization"),
        _ => part_of(request),
    })
    .await;
    let to = format!("http://{}/store?signature=secret", storage.host);
    let registry = Script::start(move |_, _| Reply::new(307, "").header("Location", to.clone())).await;
    let source = anonymous(&registry.host);
    for start in [0, 100_000, 200_000, 300_000] {
        let answer = source.blob_range(&descriptor(), start..start + 100_000).await.unwrap();
        let Ranged::Part(stream) = answer else { panic!("{answer:?}") };
        assert!(read(stream).await.unwrap() == content()[start as usize..start as usize + 100_000]);
    }
    assert_eq!((registry.seen().len(), storage.seen().len()), (2, 5));
}

#[tokio::test]
async fn an_extra_connection_that_is_not_wanted_is_given_up_at_once() {
    for (status, is_remembered) in [(429, true), (503, true), (404, false)] {
        let server = Script::start(move |_, _| Reply::new(status, "")).await;
        let source = anonymous(&server.host);
        assert!(source.takes_extra_ranges());
        source.extra_range(&descriptor(), START..END).await.unwrap_err();
        assert_eq!(server.count("/blobs/"), 1, "{status}");
        assert_eq!(source.takes_extra_ranges(), !is_remembered, "{status}");
        assert!(source.has_ranges() && source.waits().is_none(), "{status}");
    }
    let server = Script::start(|_, _| Reply::new(429, "").header("Retry-After", "3")).await;
    let source = anonymous(&server.host);
    source.extra_range(&descriptor(), START..END).await.unwrap_err();
    assert!(source.waits().is_some(), "the registry says that this user is to wait");
}
