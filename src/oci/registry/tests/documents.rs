//! Documents of registries that hang, beside those of one that does not.

use futures_util::future::join_all;

use super::script::{Ending, Reply, Script};
use super::*;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;
use crate::oci::registry::DocumentRules;
use crate::oci::{SourceError, read_blob};

async fn hung() -> Script {
    Script::start(|_, _| Reply::new(200, MANIFEST).ending(Ending::Stall(3))).await
}

fn rules(at_once: usize, share: usize) -> DocumentRules {
    DocumentRules { at_once, share, patience: Duration::from_millis(50) }
}

/// Sources for these hosts, whose documents take as long as they like.
fn sources_of(hosts: &[&str], documents: DocumentRules) -> Arc<Sources> {
    let mut settings = SourceSettings { documents, ..settings(hosts) };
    settings.retry.attempts = 1000;
    Arc::new(Sources::new(&settings).unwrap())
}

#[tokio::test]
async fn registries_that_hang_do_not_delay_another() {
    let good = Script::start(|_, _| Reply::new(200, MANIFEST)).await;
    let hung = join_all((0..10).map(|_| hung())).await;
    let mut hosts: Vec<&str> = hung.iter().map(|script| script.host.as_str()).collect();
    hosts.push(&good.host);
    let sources = sources_of(&hosts, rules(4, 2));
    let mut tasks = Vec::new();
    for script in &hung {
        for _ in 0..4 {
            let source = open(&sources, &script.host, &Credentials::none());
            tasks.push(tokio::spawn(async move { source.manifest(&v1()).await }));
        }
    }
    while hung.iter().map(|script| script.seen().len()).sum::<usize>() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    open(&sources, &good.host, &Credentials::none()).manifest(&v1()).await.unwrap();
    assert!(tasks.iter().all(|task| !task.is_finished()), "they try again");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn one_registry_and_credential_has_a_share() {
    let hung = hung().await;
    let sources = sources_of(&[&hung.host], rules(8, 3));
    let ask = |credentials: &Credentials| {
        let source = open(&sources, &hung.host, credentials);
        tokio::spawn(async move { source.manifest(&v1()).await })
    };
    let asked = async |count: usize| {
        while hung.seen().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let mut tasks: Vec<_> = (0..9).map(|_| ask(&Credentials::none())).collect();
    asked(3).await;
    tasks.push(ask(&credentials(&hung.host, "user", "p")));
    asked(4).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(hung.seen().len(), 4, "there is room, but not for the first any more");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn all_attempts_together_have_one_time() {
    let trickle = Ending::Trickle(Duration::from_millis(10));
    let long = MANIFEST.repeat(1000);
    let server = Script::start(move |_, _| Reply::new(200, long.clone()).ending(trickle)).await;
    let mut settings =
        SourceSettings { document_timeout: Duration::from_secs(1), ..settings(&[&server.host]) };
    settings.retry.attempts = 10;
    let source = open(&Sources::new(&settings).unwrap(), &server.host, &Credentials::none());
    let blob = Descriptor {
        media_type: "a/b".to_owned(),
        digest: Digest::of(b"x"),
        size: 1000 * MANIFEST.len() as u64,
        annotations: Default::default(),
    };
    for error in [
        source.manifest(&v1()).await.unwrap_err(),
        source.referrers(&Digest::of(b"x")).await.unwrap_err(),
        read_blob(&*source, &blob, 1 << 20).await.unwrap_err(),
    ] {
        assert!(matches!(error, SourceError::Overdue { crowded: false, .. }), "{error}");
        assert_eq!(error.kind(), Kind::Transient);
    }
    assert_eq!(server.seen().len(), 3, "one attempt each: there was no time for more");
}
