//! Mirrors beside a registry, all of them scripted: what is asked where, and with which credential.

use std::path::Path;

use futures_util::TryStreamExt as _;
use serde_json::json;

use super::script::{Ending, Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::mirrors::{AccessProof, MirrorSettings};
use crate::oci::{Referrer, SourceError};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn descriptor() -> Descriptor {
    let content = content();
    Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        digest: Digest::of(&content),
        size: content.len() as u64,
        annotations: Default::default(),
    }
}

fn manifest() -> Digest {
    Digest::of(MANIFEST)
}

/// What a registry with the image answers.
fn image(request: &Seen) -> Reply {
    let path = request.target.split('?').next().unwrap_or_default();
    if path.contains("/manifests/v1") || path.ends_with(&manifest().to_string()) {
        return Reply::new(200, MANIFEST).header("Docker-Content-Digest", manifest().to_string());
    }
    if path.ends_with(&descriptor().digest.to_string()) {
        let content = content();
        return match request.range() {
            None => Reply::new(200, content),
            Some(first) => {
                let range = format!("bytes {first}-{}/{}", content.len() - 1, content.len());
                Reply::new(206, &content[first..]).header("Content-Range", range)
            }
        };
    }
    Reply::new(404, "")
}

/// A directory with the `hosts.toml` of one registry.
struct Hosts(tempfile::TempDir);

impl Hosts {
    fn new(registry: &str, text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join(registry);
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("hosts.toml"), text).unwrap();
        Self(directory)
    }

    fn of(registry: &Script, mirrors: &[&Script]) -> Self {
        let host = |mirror: &&Script| format!("[host.\"http://{}\"]\n", mirror.host);
        Self::new(&registry.host, &mirrors.iter().map(host).collect::<String>())
    }

    fn settings(&self, registry: &str, proof: AccessProof) -> SourceSettings {
        let hosts_dirs = vec![self.0.path().to_owned()];
        let mirrors = MirrorSettings { hosts_dirs, proof, ..MirrorSettings::default() };
        SourceSettings { mirrors, ..settings(&[registry]) }
    }

    fn open(&self, registry: &str, proof: AccessProof, credentials: &Credentials) -> Arc<dyn Source> {
        open(&Sources::new(&self.settings(registry, proof)).unwrap(), registry, credentials)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

async fn blob(source: &dyn Source) -> Result<Vec<u8>, SourceError> {
    let chunks: Vec<bytes::Bytes> = source.blob(&descriptor()).await?.try_collect().await?;
    Ok(chunks.concat())
}

/// `METHOD KIND` of what was asked, without what was asked for, and without a look for a challenge at the root.
fn asked(script: &Script) -> Vec<String> {
    let is_root = |seen: &&Seen| seen.target.split('?').next() == Some("/v2/");
    let kind = |seen: &Seen| {
        let path = seen.target.split('?').next().unwrap_or_default();
        let kind = path.rsplit('/').nth(1).unwrap_or_default().to_owned();
        format!("{} {kind}", seen.method)
    };
    script.seen().iter().filter(|seen| !is_root(seen)).map(kind).collect()
}

async fn pull(source: &dyn Source) -> Result<Vec<u8>, SourceError> {
    let digest = source.resolve_to_read(&v1()).await?;
    source.manifest(&Version::Digest(digest)).await?;
    blob(source).await
}

#[tokio::test]
async fn the_registry_confirms_and_the_mirror_serves() {
    let (registry, mirror) = (Script::start(|r, _| image(r)).await, Script::start(|r, _| image(r)).await);
    let hosts = Hosts::of(&registry, &[&mirror]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    assert!(pull(&*source).await.unwrap() == content());
    assert_eq!(asked(&registry), ["HEAD manifests", "HEAD blobs"]);
    assert_eq!(asked(&mirror), ["GET manifests", "GET blobs"]);
    for seen in mirror.seen() {
        let namespace = format!("ns={}", registry.host.replace(':', "%3A"));
        assert!(seen.target.ends_with(&namespace), "{}", seen.target);
    }
    assert!(registry.seen().iter().all(|seen| !seen.target.contains("ns=")));
}

#[tokio::test]
async fn one_whom_the_registry_refuses_gets_nothing_from_a_mirror() {
    for status in [401, 403, 404] {
        let registry = Script::start(move |_, _| Reply::new(status, "")).await;
        let mirror = Script::start(|r, _| image(r)).await;
        let hosts = Hosts::of(&registry, &[&mirror]);
        let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
        let told = |error: SourceError| (error.kind(), error.to_string());
        let with_mirrors = told(source.resolve_to_read(&v1()).await.unwrap_err());
        let without = told(anonymous(&registry.host).resolve(&v1()).await.unwrap_err());
        assert_eq!(with_mirrors, without, "{status}: the words are those of a node without mirrors");
        assert!(source.manifest(&Version::Digest(manifest())).await.is_err());
        assert!(blob(&*source).await.is_err());
        assert!(mirror.seen().is_empty(), "{status}: {:?}", mirror.seen());
    }
}

#[tokio::test]
async fn a_blob_that_the_registry_does_not_confirm_is_asked_for_at_no_mirror() {
    // It has the manifest, which anybody can write, and not the blob.
    let lacking = |r: &Seen| if r.target.contains("/blobs/") { Reply::new(404, "") } else { image(r) };
    let registry = Script::start(move |r, _| lacking(r)).await;
    let mirror = Script::start(|r, _| image(r)).await;
    let source =
        Hosts::of(&registry, &[&mirror]).open(&registry.host, AccessProof::Origin, &Credentials::none());
    assert_eq!(pull(&*source).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(mirror.count("/blobs/"), 0);
}

#[tokio::test]
async fn a_head_that_is_refused_is_no_refusal() {
    for status in [401, 403, 405, 400] {
        let registry = Script::start(move |r, _| {
            let is_head = r.method == "HEAD" && r.target.contains("/blobs/");
            if is_head { Reply::new(status, "") } else { image(r) }
        })
        .await;
        let mirror = Script::start(|r, _| image(r)).await;
        let source =
            Hosts::of(&registry, &[&mirror]).open(&registry.host, AccessProof::Origin, &Credentials::none());
        assert!(pull(&*source).await.unwrap() == content());
        assert_eq!(mirror.count("/blobs/"), 1, "{status}");
        let firsts = registry.seen().iter().filter(|seen| seen.header("range") == Some("bytes=0-0")).count();
        assert_eq!(firsts, 1, "{status}: the first byte proves as much");
    }
}

#[tokio::test]
async fn a_registry_that_no_file_names_is_asked_for_everything() {
    let (registry, mirror) = (Script::start(|r, _| image(r)).await, Script::start(|r, _| image(r)).await);
    let hosts = Hosts::new("_default", &format!("[host.\"http://{}\"]\n", mirror.host));
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    pull(&*source).await.unwrap();
    assert!(mirror.seen().is_empty(), "it could claim to have what the mirror has of others");
    let source = hosts.open(&registry.host, AccessProof::Mirror, &Credentials::none());
    let before = registry.seen().len();
    pull(&*source).await.unwrap();
    assert_eq!((registry.seen().len(), mirror.seen().len()), (before, 2));
}

#[tokio::test]
async fn while_the_registry_is_away_nothing_is_proven_unless_mirrors_may() {
    let mirror = Script::start(|r, _| image(r)).await;
    // Nobody listens there.
    let registry = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let hosts = Hosts::new(&registry, &format!("[host.\"http://{}\"]\n", mirror.host));
    let source = hosts.open(&registry, AccessProof::Origin, &Credentials::none());
    let error = source.resolve(&v1()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.to_string().contains("--mirror-proof=mirror"), "{error}");
    assert!(mirror.seen().is_empty());
    let source = hosts.open(&registry, AccessProof::Mirror, &Credentials::none());
    assert!(pull(&*source).await.unwrap() == content());
}

#[tokio::test]
async fn each_request_falls_back_by_itself() {
    for failure in [404, 401, 403, 429, 500, 503] {
        let registry = Script::start(|r, _| image(r)).await;
        let half =
            Script::start(
                move |r, _| if r.target.contains("/blobs/") { Reply::new(failure, "") } else { image(r) },
            )
            .await;
        let second = Script::start(|r, _| image(r)).await;
        let hosts = Hosts::of(&registry, &[&half, &second]);
        let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
        assert!(pull(&*source).await.unwrap() == content());
        assert_eq!(asked(&half), ["GET manifests", "GET blobs"], "{failure}: once, without a pause");
        assert_eq!(asked(&second), ["GET blobs"], "{failure}");
        assert!(registry.seen().iter().all(|seen| seen.method == "HEAD"));
    }
}

#[tokio::test]
async fn a_mirror_that_breaks_off_is_asked_again_and_then_the_next_goes_on_by_range() {
    let registry = Script::start(|r, _| image(r)).await;
    // The second answer brings less than what is worth another try.
    let broken =
        Script::start(|r, before| image(r).ending(Ending::Cut(if before == 0 { 1_500_000 } else { 10_000 })))
            .await;
    let second = Script::start(|r, _| image(r)).await;
    let hosts = Hosts::of(&registry, &[&broken, &second]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    assert!(blob(&*source).await.unwrap() == content());
    let ranges = |script: &Script| script.seen().iter().map(Seen::range).collect::<Vec<_>>();
    assert_eq!(ranges(&broken), [None, Some(1_500_000)]);
    assert_eq!(ranges(&second), [Some(1_510_000)]);
}

#[tokio::test]
async fn wrong_bytes_of_a_mirror_lead_to_the_next_place() {
    let wrong = |r: &Seen| {
        let mut reply = image(r);
        if let Some(byte) = reply.body.first_mut() {
            *byte ^= 1;
        }
        reply
    };
    let registry = Script::start(|r, _| image(r)).await;
    let mirror = Script::start(move |r, _| wrong(r)).await;
    let hosts = Hosts::of(&registry, &[&mirror]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    let raw = source.manifest(&Version::Digest(manifest())).await.unwrap();
    assert_eq!(raw.digest, manifest(), "the manifest came from the registry");
    assert!(blob(&*source).await.unwrap() != content(), "the consumer finds out");
    assert!(source.try_elsewhere(&descriptor().digest));
    assert!(blob(&*source).await.unwrap() == content());
    assert!(!source.try_elsewhere(&descriptor().digest), "the registry itself was the last");
    assert!(source.small_blob(&descriptor()).await.is_ok());
}

#[tokio::test]
async fn a_mirror_gets_only_a_credential_that_names_it() {
    let demanding = |user: &'static str| {
        move |r: &Seen, _: usize| {
            let wanted = format!("Basic {}", encoded(user, "p"));
            match r.header("authorization") {
                Some(given) if given == wanted => image(r),
                _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
            }
        }
    };
    let (registry, mirror) = (Script::start(demanding("r")).await, Script::start(demanding("m")).await);
    let hosts = Hosts::of(&registry, &[&mirror]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &credentials(&registry.host, "r", "p"));
    pull(&*source).await.unwrap();
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()));
    let both = credentials(&registry.host, "r", "p").and(credentials(&mirror.host, "m", "p"));
    let before = registry.count("/blobs/");
    pull(&*hosts.open(&registry.host, AccessProof::Origin, &both)).await.unwrap();
    assert_eq!(registry.count("/blobs/") - before, 1, "the HEAD");
    let other = encoded("r", "p");
    assert!(
        mirror.seen().iter().all(|seen| !seen.header("authorization").unwrap_or_default().contains(&other))
    );
}

#[tokio::test]
async fn headers_go_to_their_host_and_not_along_with_a_redirect() {
    let storage = Script::start(|r, _| image(r)).await;
    let target = storage.host.clone();
    let registry = Script::start(|r, _| image(r)).await;
    let mirror = Script::start(move |r, _| {
        if r.target.contains("/hop/") {
            return Reply::new(307, "").header("Location", format!("http://{target}{}", r.target));
        }
        // First to itself, then to another host.
        Reply::new(307, "").header("Location", format!("/hop{}", r.target))
    })
    .await;
    let text = format!(
        "[host.\"http://{}\"]\n[host.\"http://{0}\".header]\nx-key = \"s3cret\"\nAuthorization = \"Basic eDp5\"\n",
        mirror.host
    );
    let hosts = Hosts::new(&registry.host, &text);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    assert!(pull(&*source).await.unwrap() == content());
    assert_eq!(mirror.seen().len(), 4);
    assert!(mirror.seen().iter().all(|seen| seen.header("x-key") == Some("s3cret")));
    for seen in registry.seen().iter().chain(&storage.seen()) {
        assert_eq!((seen.header("x-key"), seen.header("authorization")), (None, None), "{seen:?}");
    }
    assert_eq!(asked(&storage), ["GET manifests", "GET blobs"]);
    assert!(!format!("{source:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_header_for_the_authorization_gives_way_to_a_challenge() {
    let registry = Script::start(|r, _| image(r)).await;
    let wanted = format!("Basic {}", encoded("m", "p"));
    let mirror = Script::start(move |r, _| {
        let given: Vec<_> = r.headers.iter().filter(|(name, _)| name == "authorization").collect();
        match &given[..] {
            [(_, given)] if *given == wanted => image(r),
            [(_, given)] if given == "Basic eDp5" => {
                Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
            }
            other => Reply::new(400, format!("{other:?}")),
        }
    })
    .await;
    let text = format!(
        "[host.\"http://{0}\"]\n[host.\"http://{0}\".header]\nAuthorization = \"Basic eDp5\"\n",
        mirror.host
    );
    let hosts = Hosts::new(&registry.host, &text);
    let source = hosts.open(&registry.host, AccessProof::Origin, &credentials(&mirror.host, "m", "p"));
    pull(&*source).await.unwrap();
    assert!(registry.seen().iter().all(|seen| seen.method == "HEAD"));
}

#[tokio::test]
async fn capabilities_hold_for_digests_as_well() {
    let registry = Script::start(|r, _| image(r)).await;
    let (resolver, puller) = (Script::start(|r, _| image(r)).await, Script::start(|r, _| image(r)).await);
    let text = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"resolve\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
        resolver.host, puller.host
    );
    let hosts = Hosts::new(&registry.host, &text);
    let source = hosts.open(&registry.host, AccessProof::Mirror, &Credentials::none());
    pull(&*source).await.unwrap();
    assert!(resolver.seen().is_empty(), "what it says could not be fetched there");
    assert_eq!(asked(&puller), ["GET manifests", "GET blobs"], "by digest, and not by the tag");
    assert_eq!(asked(&registry), ["GET manifests"]);
    assert!(puller.seen().iter().all(|seen| !seen.target.contains("/manifests/v1")));
}

#[tokio::test]
async fn a_limited_mirror_is_left_alone_for_as_long_as_it_says() {
    let registry = Script::start(|r, _| image(r)).await;
    let mirror = Script::start(|_, _| Reply::new(429, "").header("Retry-After", "600")).await;
    let hosts = Hosts::of(&registry, &[&mirror]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    pull(&*source).await.unwrap();
    pull(&*source).await.unwrap();
    assert_eq!(mirror.seen().len(), 1);
}

#[tokio::test]
async fn a_mirror_that_is_away_is_asked_after_the_others() {
    let registry = Script::start(|r, _| image(r)).await;
    let (broken, second) =
        (Script::start(|r, _| image(r).ending(Ending::Cut(0))).await, Script::start(|r, _| image(r)).await);
    let hosts = Hosts::of(&registry, &[&broken, &second]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    pull(&*source).await.unwrap();
    assert!(blob(&*source).await.is_ok() && blob(&*source).await.is_ok());
    assert_eq!(broken.seen().len(), 1, "one wait, not one for every request");
}

/// A registry of referrers; `listed` are those of the image.
fn referring(listed: &[&[u8]]) -> impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static {
    let listed: Vec<Vec<u8>> = listed.iter().map(|document| document.to_vec()).collect();
    move |request, _| {
        let path = request.target.split('?').next().unwrap_or_default();
        if path.contains("/referrers/") {
            let entry =
                |document: &Vec<u8>| json!({"mediaType": "m", "digest": Digest::of(document), "size": 1});
            let index =
                json!({"schemaVersion": 2, "manifests": listed.iter().map(entry).collect::<Vec<_>>()});
            return Reply::new(200, index.to_string()).header("Content-Type", INDEX);
        }
        match listed.iter().find(|document| path.ends_with(&Digest::of(document).to_string())) {
            Some(document) => Reply::new(200, document.clone()),
            None => image(request),
        }
    }
}

#[tokio::test]
async fn referrers_of_mirror_and_registry_are_all_found() {
    let registry = Script::start(referring(&[b"{\"a\":1}", b"{\"b\":1}"])).await;
    let mirror = Script::start(referring(&[b"{\"b\":1}", b"{\"c\":1}"])).await;
    let lacking = Script::start(|_, _| Reply::new(404, "")).await;
    let hosts = Hosts::of(&registry, &[&lacking, &mirror]);
    let source = hosts.open(&registry.host, AccessProof::Origin, &Credentials::none());
    let digests = |found: Vec<Referrer>| found.into_iter().map(|one| one.digest).collect::<BTreeSet<_>>();
    let all = digests(source.referrers(&manifest()).await.unwrap());
    let of = |documents: &[&[u8]]| documents.iter().map(|one| Digest::of(one)).collect::<BTreeSet<_>>();
    assert_eq!(all, of(&[b"{\"a\":1}", b"{\"b\":1}", b"{\"c\":1}"]));
    let places = source.places();
    assert_eq!(places.len(), 3);
    let image = manifest();
    let one = |at: usize| places[at].referrers(&image);
    assert_eq!(digests(one(1).await.unwrap()), of(&[b"{\"b\":1}", b"{\"c\":1}"]));
    assert_eq!(digests(one(2).await.unwrap()), of(&[b"{\"a\":1}", b"{\"b\":1}"]));
    // What only the mirror has is read there, although the registry does not know it.
    let only = Version::Digest(Digest::of(b"{\"c\":1}"));
    assert!(places[1].manifest(&only).await.is_ok());
}

#[tokio::test]
async fn an_insecure_registry_of_registries_conf_is_reached_without_tls_as_well() {
    let registry = Script::start(|r, _| image(r)).await;
    let mirror = Script::start(|r, _| image(r)).await;
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}/cache\"\ninsecure = true\n",
        registry.host, mirror.host
    );
    std::fs::write(&conf, text).unwrap();
    let mirrors = MirrorSettings { registries_conf: Some(conf), ..MirrorSettings::default() };
    let settings = SourceSettings { mirrors, ..settings(&[]) };
    let source = open(&Sources::new(&settings).unwrap(), &registry.host, &Credentials::none());
    assert!(pull(&*source).await.unwrap() == content());
    let served: Vec<_> = mirror.seen().iter().map(|seen| seen.target.clone()).collect();
    assert!(served.iter().any(|target| target.starts_with("/v2/cache/team/app/blobs/")), "{served:?}");
}

#[tokio::test]
async fn a_file_that_changes_is_followed_and_a_broken_one_refuses() {
    let registry = Script::start(|r, _| image(r)).await;
    let (first, second) = (Script::start(|r, _| image(r)).await, Script::start(|r, _| image(r)).await);
    let hosts = Hosts::of(&registry, &[&first]);
    let sources = Sources::new(&hosts.settings(&registry.host, AccessProof::Origin)).unwrap();
    let reference: Reference = format!("{}/team/app:v1", registry.host).parse().unwrap();
    let open = || sources.open(&reference, &Credentials::none());
    let under_way = open().unwrap();
    pull(&*under_way).await.unwrap();
    let file = hosts.path().join(&registry.host).join("hosts.toml");
    std::fs::write(&file, format!("[host.\"http://{}\"]\n", second.host)).unwrap();
    while second.seen().is_empty() {
        pull(&*open().unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = first.seen().len();
    pull(&*under_way).await.unwrap();
    assert_eq!(first.seen().len(), before + 2, "a pull keeps what it began with");
    std::fs::write(&file, "[host\n").unwrap();
    let error = loop {
        match open() {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("hosts.toml, line 1"), "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
    let identity = sources.identity(&reference, &Credentials::none());
    assert!(identity.is_ok(), "what is proven stays proven");
}

#[test]
fn the_identity_is_that_of_the_credentials_that_prove() {
    let hosts = Hosts::new("r.io", "[host.\"https://m.io\"]\n");
    let reference: Reference = "r.io/team/app:v1".parse().unwrap();
    let id = |proof, credentials: &Credentials| {
        Sources::new(&hosts.settings("x.io", proof)).unwrap().identity(&reference, credentials).unwrap()
    };
    let (own, other) = (credentials("r.io", "a", "p"), credentials("m.io", "b", "p"));
    let both = own.clone().and(other.clone());
    let anonymous = crate::oci::CredentialId::anonymous();
    let by_origin = |credentials: &Credentials| id(AccessProof::Origin, credentials);
    assert_eq!(by_origin(&Credentials::none()), anonymous);
    assert_eq!(by_origin(&other), anonymous, "what a mirror is shown proves nothing");
    assert_eq!(by_origin(&own), by_origin(&both));
    assert_ne!(by_origin(&own), anonymous);
    let by_mirror = |credentials: &Credentials| id(AccessProof::Mirror, credentials);
    assert_eq!(by_mirror(&Credentials::none()), anonymous);
    let all = [by_mirror(&own), by_mirror(&other), by_mirror(&both), by_origin(&own), anonymous];
    let different: BTreeSet<_> = all.into_iter().collect();
    assert_eq!(different.len(), all.len());
}
