//! Upgrades: an image that another release built is built anew of what is here.

use std::path::Path;
use std::sync::Arc;

use composefs_csi::image::store::{ImageRecord, Store};
use composefs_csi::image::tree::Rules;
use composefs_csi::kind::Kind;
use composefs_csi::pull::{Images as _, PullError, PullLimits, PullPolicy, Puller};

use super::fixture::*;
use crate::support::images::{Image, Layout};
use crate::support::pulling::{accept_all, puller, request};

/// A node with an image as builder 1 made it: with the named pipe and the set-user-ID program that are in a layer.
struct Node {
    directory: tempfile::TempDir,
    store: Arc<Store>,
    puller: Puller,
    layout: Layout,
    old: ImageRecord,
}

impl Node {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(open(directory.path()));
        let layout = Layout::of(&Image::new(vec![layer()]));
        let formerly =
            PullLimits { keep_special_files: true, keep_privileges: true, ..PullLimits::default() };
        let formerly = puller(&store, &[], &accept_all(), formerly);
        let asked = request(&layout.reference("latest"), PullPolicy::IfNotPresent);
        let ready = formerly.ensure(&asked).await.unwrap();
        let old = ImageRecord { builder: 1, rules: Rules::Faithful, ..ready.record };
        store.commit_image(&ready.hold, &old).unwrap();
        let puller = puller(&store, &[], &accept_all(), PullLimits::default());
        Self { directory, store, puller, layout, old }
    }

    async fn ensure(&self, policy: PullPolicy) -> Result<ImageRecord, PullError> {
        let asked = request(&self.layout.reference("latest"), policy);
        self.puller.ensure(&asked).await.map(|ready| ready.record)
    }

    /// From now on nothing can be fetched.
    fn cut_off(&self) {
        std::fs::remove_dir_all(self.layout.path()).unwrap();
    }

    fn volume(&self, boot: &str) -> std::path::PathBuf {
        let path = self.store.volumes().directory().join("volume.json");
        let image = &self.old.manifest;
        std::fs::write(&path, format!(r#"{{"format":1,"image":"{image}","boot":"{boot}"}}"#)).unwrap();
        path
    }
}

fn layer() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, content) in
        [("file", tar::EntryType::Regular, &[7; 5000][..]), ("pipe", tar::EntryType::Fifo, &[])]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        archive.append_data(&mut header, name, content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn is_renewed(now: &ImageRecord, old: &ImageRecord) {
    assert_eq!((now.builder, now.manifest), (ImageRecord::BUILDER, old.manifest));
    assert_eq!(now.rules, PullLimits::default().rules(), "and gives no rights");
    assert_ne!(now.image, old.image);
    assert_eq!(now.inodes, old.inodes - 1, "the pipe stays out");
    assert_eq!((&now.layers, now.bytes), (&old.layers, old.bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_builder_is_built_anew_without_its_source() {
    let node = Node::new().await;
    node.cut_off();
    let (one, other) = tokio::join!(node.ensure(PullPolicy::Never), node.ensure(PullPolicy::IfNotPresent));
    let now = one.unwrap();
    is_renewed(&now, &node.old);
    assert_eq!(other.unwrap(), now);
    assert_eq!(node.store.images().get(&now.manifest).unwrap(), Some(now.clone()));
    assert_eq!(node.ensure(PullPolicy::Never).await.unwrap(), now, "once");
    check(&node.store);
    // What only the old image needed goes with the next sweep, and the new one stays whole.
    sweep(&node.store, std::time::Duration::ZERO).unwrap();
    assert!(!is_whole(node.directory.path(), &node.old.image));
    check(&node.store);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_volume_shows_stays_until_it_has_gone_or_the_node_has_booted() {
    let node = Node::new().await;
    let record = node.volume(BOOT);
    // Others get an image as this release makes it, beside the old one.
    let both = node.ensure(PullPolicy::Always).await.unwrap();
    assert_eq!(ImageRecord { variants: Vec::new(), ..both.clone() }, node.old);
    let rules = PullLimits::default().rules();
    assert_eq!(both.variants.iter().map(|variant| variant.rules).collect::<Vec<_>>(), [rules]);
    assert_ne!(both.image_by(rules), Some(node.old.image));
    std::fs::write(&record, "{").unwrap();
    assert_eq!(node.ensure(PullPolicy::Never).await.unwrap(), both, "it might be about this image");
    check(&node.store);
    node.volume(NEXT_BOOT);
    is_renewed(&node.ensure(PullPolicy::Never).await.unwrap(), &node.old);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_layers_are_lost_is_pulled_again() {
    let node = Node::new().await;
    let layers = node.directory.path().join("layers");
    remove_files(&layers);
    let error = node.ensure(PullPolicy::IfNotPresent).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains("pull the image again"), "{error}");
    is_renewed(&node.ensure(PullPolicy::IfNotPresent).await.unwrap(), &node.old);
    assert_eq!(std::fs::read_dir(layers).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_image_is_what_its_manifest_says_whoever_built_it() {
    let node = Node::new().await;
    let sealed = ImageRecord { sealed: true, rules: Rules::Verbatim, builder: 2, ..node.old.clone() };
    let hold = node.store.hold();
    node.store.commit_image(&hold, &sealed).unwrap();
    drop(hold);
    // A volume may show it: it stays the same. But no release before looked for what it gives to pods.
    node.volume(BOOT);
    node.cut_off();
    let error = node.ensure(PullPolicy::Never).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error.to_string().contains("\"/pipe\"") && error.to_string().contains("--keep-special-files"),
        "{error}"
    );
    let now = node.store.images().get(&sealed.manifest).unwrap().unwrap();
    assert_eq!((now.image, now.rules, now.sealed), (sealed.image, sealed.rules, true));
    assert_eq!(now.powers.unwrap().special_file.unwrap(), "/pipe");
}

fn remove_files(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}
