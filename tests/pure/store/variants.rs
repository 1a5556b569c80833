//! Images of the same layers by other rules: for `noexec`, and for what a policy keeps. Each is built once, has no
//! objects of its own, and is kept as long as something shows it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use composefs_csi::image::composefs;
use composefs_csi::image::seal::FAITHFUL;
use composefs_csi::image::store::{ImageRecord, Store, StoreError, Variant};
use composefs_csi::image::tree::{Reduction, Rules};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::kind::Kind;
use composefs_csi::pull::{Caller, Images as _, Kept, PullError, PullLimits, PullPolicy, Puller, Ready};
use composefs_csi::trust::TrustSettings;
use serde_json::json;

use super::fixture::*;
use crate::support::images::{Image, Layout};
use crate::support::pulling::{accept_all, puller, request};

const NOEXEC: Rules = Rules::Reduced { to: Reduction::NotExecutable, special_files: false };
const KEEPS_ALL: Kept = Kept { special_files: true, privileges: true };

struct Node {
    directory: tempfile::TempDir,
    store: Arc<Store>,
    puller: Puller,
}

impl Node {
    fn new(trust: &TrustSettings, kept: Kept) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(open(directory.path()));
        let Kept { special_files, privileges } = kept;
        let limits = PullLimits {
            keep_special_files: special_files,
            keep_privileges: privileges,
            ..PullLimits::default()
        };
        let puller = puller(&store, &[], trust, limits);
        Self { directory, store, puller }
    }

    async fn ask(&self, image: &str, noexec: bool, caller: Option<Caller>) -> Result<Ready, PullError> {
        let mut asked = request(image, PullPolicy::IfNotPresent);
        asked.noexec = noexec;
        asked.caller = caller.unwrap_or(asked.caller);
        self.puller.ensure(&asked).await
    }

    async fn get(&self, image: &str, noexec: bool) -> Ready {
        self.ask(image, noexec, None).await.unwrap()
    }

    fn named(&self, image: &VerityDigest) -> BTreeSet<VerityDigest> {
        let hex = image.hex();
        let path = self.directory.path().join("objects").join(&hex[..2]).join(&hex[2..]);
        composefs::list_objects(&std::fs::read(path).unwrap()).unwrap().into_iter().collect()
    }
}

/// A set-user-ID program, a plain one, data, and what is asked for besides.
fn layout(more: &[(&str, tar::EntryType)]) -> Layout {
    Layout::of(&Image::new(vec![layer(more)]))
}

fn layer(more: &[(&str, tar::EntryType)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, name, content).unwrap();
    };
    add("data", tar::EntryType::Regular, 0o644, &[1; 5000]);
    for (name, kind) in more {
        match *name {
            "su" => add(name, *kind, 0o4755, &[2; 5000]),
            "sh" => add(name, *kind, 0o755, &[3; 5000]),
            _ => add(name, *kind, 0o644, &[]),
        }
    }
    archive.into_inner().unwrap()
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const PROGRAMS: [(&str, tar::EntryType); 2] = [("su", FILE), ("sh", FILE)];

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_is_built_once_shares_all_objects_and_is_the_same_everywhere() {
    let (layout, node) = (layout(&PROGRAMS), Node::new(&accept_all(), Kept::default()));
    let image = layout.reference("latest");
    let plain = node.get(&image, false).await;
    assert_eq!(plain.image, plain.record.image);
    let objects = all_objects(node.directory.path());
    // Nothing more is fetched.
    std::fs::remove_dir_all(layout.path()).unwrap();
    let ask = || node.ask(&image, true, Some(Caller::Mount));
    let (one, other) = tokio::join!(ask(), ask());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.image, &one.record), (other.image, &other.record));
    assert_eq!(one.record.image_by(NOEXEC), Some(one.image));
    assert_eq!((one.record.variants.len(), one.record.image), (1, plain.image));
    assert_ne!(one.image, plain.image);
    assert_eq!(node.named(&one.image), node.named(&plain.image));
    let added: Vec<_> = all_objects(node.directory.path()).difference(&objects).copied().collect();
    assert_eq!(added, [one.image], "the image is the one object that it adds");
    let other = node.ask(&image, false, Some(Caller::Mount)).await.unwrap();
    assert_eq!(other.image, plain.image, "others keep theirs");

    let elsewhere = Node::new(&accept_all(), KEEPS_ALL);
    let layout = self::layout(&PROGRAMS);
    let again = layout.reference("latest");
    // Nothing that can be executed gives rights, whatever the node keeps; only special files make a difference.
    let found = elsewhere.get(&again, true).await;
    assert_eq!(found.image, one.image);
    assert_ne!(elsewhere.get(&again, false).await.image, plain.image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_is_kept_as_the_image_is() {
    let (layout, node) = (layout(&PROGRAMS), Node::new(&accept_all(), Kept::default()));
    let ready = node.get(&layout.reference("latest"), true).await;
    let (variant, manifest) = (ready.image, ready.record.manifest);
    drop(ready);
    // Only the variant is mounted.
    assert!(collect(&node.store, EVERYTHING, &[variant]).unwrap().images.is_empty());
    check(&node.store);
    assert!(is_whole(node.directory.path(), &variant));
    assert_eq!(all_objects(node.directory.path()), needed(&node.store));
    // Damage of it is damage of the image: both come back by the next pull.
    node.store.remove_damaged(&BTreeSet::from([variant])).unwrap();
    assert_eq!(node.store.images().get(&manifest).unwrap(), None);
    let again = node.get(&layout.reference("latest"), true).await;
    assert_eq!(again.image, variant);
    drop(again);
    // The record is lost, and the mount goes on reading.
    node.store.images().forget(&manifest).unwrap();
    collect(&node.store, EVERYTHING, &[variant]).unwrap();
    let objects = node.named(&variant);
    assert_eq!(objects.len(), 3);
    assert!(objects.iter().all(|object| is_whole(node.directory.path(), object)));
    // Nothing shows it any more.
    collect(&node.store, EVERYTHING, &[]).unwrap();
    assert!(all_objects(node.directory.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_that_are_built_at_the_same_time_do_not_lose_each_other() {
    let (layout, directory) = (layout(&PROGRAMS), tempfile::tempdir().unwrap());
    let requirements =
        json!([{"type": "insecureAcceptAnything"}, {"type": "composefs", "keepPrivileges": true}]);
    let node = Node::new(&write(&directory.path().join("policy"), requirements), Kept::default());
    let image = layout.reference("latest");
    for _ in 0..8 {
        let (kept, noexec) = tokio::join!(node.get(&image, false), node.get(&image, true));
        let manifest = kept.record.manifest;
        let record = node.store.images().get(&manifest).unwrap().unwrap();
        assert_eq!(record.image_by(Rules::Faithful), Some(kept.image));
        assert_eq!(record.image_by(NOEXEC), Some(noexec.image));
        drop((kept, noexec));
        node.store.images().forget(&manifest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_variant_is_held_against_its_own_first_build() {
    let (layout, node) = (layout(&PROGRAMS), Node::new(&accept_all(), Kept::default()));
    let image = layout.reference("latest");
    let ready = node.get(&image, true).await;
    let [variant] = &ready.record.variants[..] else { panic!("{:?}", ready.record) };
    let other = node.store.objects().under(&ready.hold).unwrap().put(b"another image").unwrap().0;
    let forged = |image, rules| {
        let variants = vec![Variant { image, rules, image_size: 13, ..variant.clone() }];
        node.store.commit_image(&ready.hold, &ImageRecord { variants, ..ready.record.clone() })
    };
    let refused = forged(other, NOEXEC).unwrap_err();
    assert!(
        matches!(refused, StoreError::OtherDigest { built, recorded, .. } if (built, recorded) == (other, ready.image)),
        "{refused}"
    );
    let absent = forged(VerityDigest([9; 32]), NOEXEC).unwrap_err();
    assert!(matches!(absent, StoreError::NoObject(_)), "{absent}");
    let unknown = node.store.commit_variant(&ready.hold, &manifest("unknown"), variant.clone()).unwrap_err();
    assert!(matches!(unknown, StoreError::NoImage(_)), "{unknown}");
    // Other rules have a first build of their own, and neither forgets the others.
    forged(other, Rules::Verbatim).unwrap();
    assert!(matches!(forged(other, NOEXEC), Err(StoreError::OtherDigest { .. })));
    node.store.commit_image(&ready.hold, &ready.record).unwrap();
}

fn write(path: &Path, requirements: serde_json::Value) -> TrustSettings {
    std::fs::write(path, json!({"default": requirements}).to_string()).unwrap();
    TrustSettings { policy: Some(path.to_owned()), ..TrustSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_keeps_privileges_for_its_own_callers() {
    let (layout, directory) = (layout(&PROGRAMS), tempfile::tempdir().unwrap());
    let accept = json!({"type": "insecureAcceptAnything"});
    let keeps = json!({"type": "composefs", "keepPrivileges": true});
    std::fs::write(directory.path().join("shop.json"), json!({"default": [accept, keeps]}).to_string())
        .unwrap();
    let general = write(&directory.path().join("policy"), json!([accept]));
    let trust = TrustSettings { policy_dir: Some(directory.path().to_owned()), ..general };
    let (node, image) = (Node::new(&trust, Kept::default()), layout.reference("latest"));
    let other = Caller::Pod { namespace: Some("elsewhere".to_owned()) };
    let plain = node.ask(&image, false, Some(other.clone())).await.unwrap();
    let kept = node.get(&image, false).await;
    assert_eq!((kept.record.image_by(Rules::Faithful), kept.record.image), (Some(kept.image), plain.image));
    assert_ne!(kept.image, plain.image);
    assert_eq!(node.ask(&image, false, Some(other)).await.unwrap().image, plain.image);
    // Without programs there is nothing to keep.
    assert_eq!(node.get(&image, true).await.record.variants.len(), 2);
}

/// A layout whose image says that it is sealed as the layers have it, with a digest that is right.
async fn self_sealed(more: &[(&str, tar::EntryType)]) -> Layout {
    let maker = Node::new(&accept_all(), KEEPS_ALL);
    let digest = maker.get(&layout(more).reference("latest"), false).await.image;
    let mut image = Image::new(vec![layer(more)]);
    image.annotations.insert(FAITHFUL.to_owned(), digest.hex());
    Layout::of(&image)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_that_nobody_has_verified_admits_nothing_that_others_may_not_have() {
    const FIFO: tar::EntryType = tar::EntryType::Fifo;
    let plain = self_sealed(&[("sh", FILE)]).await;
    let privileged = self_sealed(&PROGRAMS).await;
    let special = self_sealed(&[("pipe", FIFO)]).await;
    let data = self_sealed(&[]).await;
    let kept = |special_files, privileges| Kept { special_files, privileges };
    for (layout, noexec, kept, refused) in [
        (&plain, false, kept(false, false), None),
        (&plain, true, kept(true, true), Some("/sh")),
        (&data, true, kept(false, false), None),
        (&privileged, false, kept(true, false), Some("/su")),
        (&privileged, false, kept(false, true), None),
        (&special, false, kept(false, true), Some("/pipe")),
        (&special, false, kept(true, false), None),
    ] {
        let node = Node::new(&accept_all(), kept);
        let image = layout.reference("latest");
        // Twice: when it is pulled, and when it is there.
        for _ in 0..2 {
            match (node.ask(&image, noexec, None).await, refused) {
                (Ok(ready), None) => {
                    assert!(ready.record.sealed && ready.image == ready.record.image);
                    assert!(ready.record.variants.is_empty());
                }
                (Err(error), Some(path)) => {
                    assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
                    let kind = if noexec { Kind::Unsupported } else { Kind::Denied };
                    assert_eq!(error.kind(), kind, "{error}");
                }
                (other, _) => panic!("{kept:?} noexec {noexec}: {other:?}"),
            }
        }
        // The operator may look at it, and a pod is not known yet when it is staged.
        node.ask(&image, noexec, Some(Caller::Operator)).await.unwrap();
        node.ask(&image, noexec, Some(Caller::Staging)).await.unwrap();
    }
}
