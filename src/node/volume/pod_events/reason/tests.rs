use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::*;
use crate::image::objects::Corruption;
use crate::image::seal::SealError;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::volume::levels::Levels;
use crate::node::volume::plan;
use crate::oci::digest::Digest;
use crate::oci::limits::Cap;
use crate::pull::Excess;
use crate::trust;
use crate::volume::layouts::Layouts;

fn source(source: SourceError) -> VolumeError {
    PullError::Source { image: "r.io/x:1".into(), source: Arc::new(source) }.into()
}

fn store(source: StoreError) -> VolumeError {
    PullError::Store { image: "r.io/x:1".into(), source: Arc::new(source) }.into()
}

fn kernel(errno: Errno) -> VolumeError {
    let (step, subject) = ("fsopen".into(), "image".into());
    MountError::Kernel { step, subject, errno, messages: Vec::new(), remedy: "modprobe" }.into()
}

fn limited(retry_after: Option<Duration>) -> SourceError {
    SourceError::RateLimited { subject: "s".into(), host: "r.io".into(), retry_after, detail: String::new() }
}

fn denied() -> SourceError {
    let (subject, host) = ("s".into(), "r.io".into());
    SourceError::Denied { subject, host, credentials_sent: true, detail: String::new() }
}

fn assert_all(reason: Option<EventReason>, errors: impl IntoIterator<Item = VolumeError>) {
    for error in errors {
        assert_eq!(EventReason::of(&error), reason, "{error}");
    }
}

#[test]
fn a_refusal_is_told_apart_from_a_fault() {
    let (manifest, image) = (Digest::of(b"m"), VerityDigest::of(b"i"));
    let levels = Levels { here: Integrity::Fetch, least: Integrity::Read, no_read: None };
    let layout = "oci:/etc".parse().unwrap();
    let pull = |error: PullError| VolumeError::from(error);
    assert_all(
        Some(EventReason::Refused),
        [
            pull(PullError::Refused(trust::PolicyRefusal("no signature".into()))),
            pull(PullError::Unsealed { image: "x".into(), why: "no".into() }),
            pull(PullError::Excess { image: "x".into(), source: Excess::Privileges("/su".into()) }),
            pull(PullError::Seal {
                image: "x".into(),
                source: Arc::new(SealError::Malformed { annotation: "a", value: "b".into() }),
            }),
            source(denied()),
            store(StoreError::Unauthentic { path: PathBuf::new(), what: "r".into() }),
            store(StoreError::OtherDigest {
                manifest,
                built: image,
                recorded: VerityDigest::of(b"j"),
                path: PathBuf::new(),
            }),
            levels.demand(None, None).unwrap_err().into(),
            Layouts::default().check(&layout).unwrap_err().into(),
            MountError::Unreachable { image }.into(),
            MountError::NotSealed { image }.into(),
            MountError::WrongDigest { image, measured: VerityDigest::of(b"j") }.into(),
            MountError::BadObject { image, object: image, corruption: Corruption::Missing }.into(),
        ],
    );
    // Some of these have the same kind, and so the same gRPC code, as one above.
    let single = plan::VolumeRefusal::SinglePod { volume: "v".into(), path: PathBuf::new() };
    let file = |kind: std::io::ErrorKind| SourceError::File { path: PathBuf::new(), source: kind.into() };
    let exceeded = Cap::ConfigBytes.exceeded(2, 1);
    assert_all(
        Some(EventReason::Failed),
        [
            pull(PullError::Absent("x".into())),
            pull(PullError::Limit { image: "x".into(), exceeded }),
            pull(PullError::DiffId { image: "x".into(), blob: manifest, found: manifest, claimed: manifest }),
            source(SourceError::NotFound { subject: "s".into() }),
            source(SourceError::PlainHttp { host: "r.io".into() }),
            source(file(std::io::ErrorKind::PermissionDenied)),
            store(StoreError::NoLayer(manifest)),
            MountError::NoMountMethod { kernel: "5.4".into(), tried: Vec::new() }.into(),
            kernel(Errno::NODEV),
            kernel(Errno::ACCESS),
            VolumeError::Refused(single),
            VolumeError::Lost("gone".into()),
        ],
    );
}

#[test]
fn a_pull_that_goes_on_is_not_a_failure() {
    let busy = StoreError::Busy { store: PathBuf::new(), why: "a sweep" };
    assert_all(
        None,
        [
            VolumeError::Busy("v".parse().unwrap()),
            VolumeError::Pulling { image: "x".into(), progress: "1 of 2 MB".into() },
            store(busy),
        ],
    );
}

#[test]
fn a_registry_that_wants_fewer_requests_has_a_reason_of_its_own() {
    assert_all(
        Some(EventReason::RateLimited),
        [source(limited(None)), source(limited(Some(Duration::from_secs(90))))],
    );
    let passing = SourceError::Unavailable {
        subject: "s".into(),
        host: "r.io".into(),
        status: 503,
        retry_after: Some(Duration::from_secs(1)),
        detail: String::new(),
    };
    assert_all(Some(EventReason::Failed), [source(passing)]);
}

#[test]
fn every_reason_is_in_the_operators_handbook() {
    let handbook = include_str!("../../../../../docs/OPERATIONS.md");
    let (_, events) = handbook.split_once("\n## Events\n").unwrap();
    let events = events.split("\n## ").next().unwrap();
    for reason in EventReason::ALL {
        let sort = if reason.is_warning() { "Warning" } else { "Normal" };
        let row = format!("| {} | {sort} |", reason.name());
        assert!(events.contains(&row), "docs/OPERATIONS.md has no row {row:?}");
    }
}
