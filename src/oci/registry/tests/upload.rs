//! Uploads that break, move, and are not wanted.

use std::sync::Mutex;

use super::script::{Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::destination::{Begun, NewBlob, NewManifest, Referring, Repository};
use crate::oci::digest::Digest;
use crate::oci::manifest::{OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Referrer, SourceError};

const CONTENT: &str = "thirty-two bytes of some content";

fn blob() -> NewBlob {
    NewBlob { digest: Digest::of(CONTENT.as_bytes()), size: CONTENT.len() as u64 }
}

fn repository(host: &str, credentials: &Credentials) -> Arc<dyn Repository> {
    let Ok(Reference::Registry(registry)) = format!("{host}/team/app:v1").parse() else { panic!() };
    sources(host).repository(&registry, credentials).unwrap()
}

/// Takes an upload; what happens to a `PATCH` is up to `fault`, which gets the bytes so far and the new ones.
fn registry(
    got: Arc<Mutex<String>>,
    fault: impl Fn(&mut String, &str, usize) -> u16 + Send + Sync + 'static,
) -> impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static {
    let patches = Mutex::new(0);
    move |request, _| {
        let mut got = got.lock().unwrap();
        let at = |status| Reply::new(status, "").header("Location", "/v2/team/app/blobs/uploads/id?state=x");
        match request.method.as_str() {
            "POST" => at(202),
            "PATCH" => {
                let range = request.header("content-range").unwrap();
                assert_eq!(range, format!("{}-{}", got.len(), got.len() + request.body.len() - 1));
                let mut patches = patches.lock().unwrap();
                *patches += 1;
                at(fault(&mut got, &request.body, *patches))
            }
            "GET" => at(204).header("Range", format!("0-{}", got.len().saturating_sub(1))),
            "PUT" => {
                assert!(
                    request.target.ends_with(&format!("?state=x&digest=sha256%3A{}", blob().digest.hex()))
                );
                Reply::new(if *got == CONTENT { 201 } else { 400 }, "")
            }
            other => panic!("{other}"),
        }
    }
}

async fn send(host: &str) -> Result<(), SourceError> {
    let Begun::Open(mut upload) = repository(host, &Credentials::none()).begin(&blob(), None).await? else {
        panic!("mounted")
    };
    upload.append(CONTENT[..20].into()).await?;
    upload.append(CONTENT[20..].into()).await?;
    upload.finish().await
}

#[tokio::test]
async fn what_has_not_arrived_is_sent_again() {
    let got = Arc::new(Mutex::new(String::new()));
    let answer = registry(Arc::clone(&got), |got, new, patch| match patch {
        // Nothing of it arrives; then a part; then all, and only the answer is lost.
        1 => 503,
        2 => {
            got.push_str(&new[..7]);
            502
        }
        4 => {
            got.push_str(new);
            500
        }
        _ => {
            got.push_str(new);
            202
        }
    });
    let server = Script::start(answer).await;
    send(&server.host).await.unwrap();
    assert_eq!(*got.lock().unwrap(), CONTENT);
    let methods: Vec<_> = server.seen().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["POST", "PATCH", "GET", "PATCH", "GET", "PATCH", "PATCH", "GET", "PUT"]);
}

#[tokio::test]
async fn an_upload_that_the_registry_has_lost_ends() {
    let answer = registry(Arc::default(), |got, new, patch| {
        got.push_str(new);
        if patch == 2 {
            got.clear();
            return 503;
        }
        202
    });
    let server = Script::start(answer).await;
    let error = send(&server.host).await.unwrap_err();
    // `Range: 0-0` is one byte at most, and 20 were sent.
    assert!(error.to_string().contains("of the upload it has 1 bytes, and 20 were sent"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let server = Script::start(registry(Arc::default(), |_, _, _| 403)).await;
    assert_eq!(send(&server.host).await.unwrap_err().kind(), Kind::Denied);
    // The other one is the question whether the API's root has a challenge.
    assert_eq!(server.seen().iter().filter(|request| request.method == "PATCH").count(), 1);
}

#[tokio::test]
async fn a_blob_of_another_repository_is_asked_for() {
    let server = Script::start(|request, _| {
        let wanted = format!("/v2/team/app/blobs/uploads/?mount={}&from=team/base", blob().digest);
        Reply::new(if request.target == wanted { 201 } else { 404 }, "")
    })
    .await;
    let begun = repository(&server.host, &Credentials::none()).begin(&blob(), Some("team/base")).await;
    assert!(matches!(begun.unwrap(), Begun::Mounted));
}

#[tokio::test]
async fn whether_a_blob_is_there_is_asked_with_the_rights_of_a_push() {
    for (status, there) in [(200, true), (404, false), (403, false), (405, false)] {
        let server = Script::start(move |_, _| Reply::new(status, "")).await;
        let found = repository(&server.host, &Credentials::none()).has_blob(&blob()).await.unwrap();
        assert_eq!(found, there, "{status}");
    }
    let server = Script::start(|_, _| Reply::new(503, "")).await;
    assert!(repository(&server.host, &Credentials::none()).has_blob(&blob()).await.is_err());
    let server = Script::start(|request, _| {
        let host = request.header("host").unwrap();
        match request.target.as_str() {
            target if target.starts_with("/token") => Reply::new(200, r#"{"token":"t"}"#),
            _ if request.header("authorization") == Some("Bearer t") => Reply::new(200, ""),
            _ => Reply::new(401, "")
                .header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\",service=\"s\"")),
        }
    })
    .await;
    assert!(repository(&server.host, &Credentials::none()).has_blob(&blob()).await.unwrap());
    let asked = server.seen().into_iter().find(|request| request.target.starts_with("/token")).unwrap();
    assert!(asked.target.contains("pull%2Cpush"), "{}", asked.target);
}

/// Some registries send their clients to a storage, by a URL that is signed.
#[tokio::test]
async fn another_host_is_not_shown_the_credential() {
    let storage = Script::start(|request, _| match request.method.as_str() {
        "PATCH" => Reply::new(202, "").header("Location", "/signed?2"),
        _ => Reply::new(201, ""),
    })
    .await;
    let there = format!("http://{}/signed", storage.host);
    let server = Script::start(move |request, _| match request.header("authorization") {
        Some(_) => Reply::new(202, "").header("Location", there.clone()),
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let credentials = credentials(&server.host, "user", "a secret");
    let begun = repository(&server.host, &credentials).begin(&blob(), None).await.unwrap();
    let Begun::Open(mut upload) = begun else { panic!("mounted") };
    upload.append(CONTENT.into()).await.unwrap();
    upload.finish().await.unwrap();
    let seen = storage.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.header("authorization").is_none()));
}

/// Where the registry says that it lists the referrer itself, nothing else is written.
#[tokio::test]
async fn a_referrer_is_listed_by_the_registry_or_under_a_tag() {
    let subject = Digest::of(b"subject");
    let tag = format!("/v2/team/app/manifests/sha256-{}", subject.hex());
    let bytes = format!(r#"{{"schemaVersion":2,"subject":{{"digest":"{subject}"}}}}"#);
    let manifest = NewManifest { media_type: OCI_MANIFEST.to_owned(), bytes: bytes.into() };
    let referring = Referring { subject: &subject, artifact_type: "t/a" };
    for has_api in [true, false] {
        let (kept, at) = (Arc::new(Mutex::new(None::<String>)), tag.clone());
        let (list, seen) = (Arc::clone(&kept), subject.to_string());
        let server = Script::start(move |request, _| match (request.method.as_str(), request.target == at) {
            ("PUT", false) if has_api => Reply::new(201, "").header("OCI-Subject", &*seen),
            ("PUT", false) => Reply::new(201, ""),
            ("PUT", true) => {
                *list.lock().unwrap() = Some(request.body.clone());
                Reply::new(201, "")
            }
            ("GET", true) => match &*list.lock().unwrap() {
                Some(index) => Reply::new(200, index.clone()).header("Content-Type", OCI_INDEX),
                None => Reply::new(404, ""),
            },
            (other, _) => panic!("{other}"),
        })
        .await;
        let repository = repository(&server.host, &Credentials::none());
        for _ in 0..2 {
            repository.put_referrer(&manifest, &referring).await.unwrap();
        }
        let listed =
            kept.lock().unwrap().clone().map(|index| crate::oci::referrers::parse(&index.into()).unwrap());
        let expected = Referrer { digest: manifest.digest(), artifact_type: Some("t/a".to_owned()) };
        assert_eq!(listed, (!has_api).then(|| vec![expected]));
        let writes = server.seen().iter().filter(|request| request.method == "PUT").count();
        assert_eq!(writes, if has_api { 2 } else { 3 }, "a list that has it is not written again");
    }
    let server = Script::start(|request, _| match request.method.as_str() {
        "PUT" => Reply::new(201, ""),
        _ => Reply::new(200, r#"{"schemaVersion":2,"config":{},"layers":[]}"#),
    })
    .await;
    let refused = repository(&server.host, &Credentials::none()).put_referrer(&manifest, &referring).await;
    assert!(refused.unwrap_err().to_string().contains("is no list of referrers; remove it"));
}

#[tokio::test]
async fn a_blob_in_memory_is_sent_once() {
    let got = Arc::new(Mutex::new(String::new()));
    let (answer, there) = (
        registry(Arc::clone(&got), |got, new, _| {
            got.push_str(new);
            202
        }),
        Arc::clone(&got),
    );
    let server = Script::start(move |request, before| match request.method.as_str() {
        "HEAD" => Reply::new(if *there.lock().unwrap() == CONTENT { 200 } else { 404 }, ""),
        _ => answer(request, before),
    })
    .await;
    for _ in 0..2 {
        repository(&server.host, &Credentials::none()).put_blob(CONTENT.into()).await.unwrap();
    }
    assert_eq!(server.seen().iter().filter(|request| request.method == "PATCH").count(), 1);
}
