//! Images that are broken or mean harm, through the whole driver: each is refused with its gRPC code and a
//! message that names what is wrong, nothing is mounted, and the next good image is untouched. Needs root.

use std::io::Write as _;

use composefs_csi::oci::digest::Digest;
use tar::{EntryType, Header};
use tonic::{Code, Status};

use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Compression, Image, Layer, Layout};
use crate::support::registry::{Options, Registry};

/// One member with a raw name and link name, as no honest program writes it.
fn member(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = members.concat();
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn good() -> Vec<u8> {
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    archive(&[member(EntryType::Regular, b"good", b"", &content)])
}

struct Node {
    machine: Machine,
    plugin: Plugin,
}

impl Node {
    async fn start(arguments: &[&str]) -> Self {
        let machine = Machine::new(arguments);
        let plugin = machine.start().await;
        Self { machine, plugin }
    }

    async fn publish(&self, image: &str) -> Result<(), Status> {
        self.plugin.node.clone().node_publish_volume(self.machine.publish("pod", image)).await.map(drop)
    }

    /// Publishing fails with `code` and a message that has all of `words`; nothing is left.
    async fn refuses(&self, image: &str, code: Code, words: &[&str]) {
        let status = self.publish(image).await.expect_err(image);
        assert_eq!(status.code(), code, "{image}: {}", status.message());
        for word in words {
            assert!(status.message().contains(word), "{image}: {:?} does not say {word:?}", status.message());
        }
        self.unpublish().await;
        self.machine.assert_nothing_published();
    }

    async fn unpublish(&self) {
        self.plugin.node.clone().node_unpublish_volume(self.machine.unpublish("pod")).await.unwrap();
    }

    /// A good image still works.
    async fn still_serves(&self, image: &str) {
        self.publish(image).await.unwrap();
        let content = std::fs::read(self.machine.target("pod").join("good")).unwrap();
        assert_eq!(&content[4..8], &1u32.to_le_bytes());
        self.unpublish().await;
        self.machine.assert_nothing_published();
    }
}

fn layouts() -> String {
    format!("--layout-dir={}", std::env::temp_dir().display())
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_lead_outside_or_make_no_sense_are_refused_by_name() {
    let node = Node::start(&[&layouts()]).await;
    let file = |name: &[u8]| member(EntryType::Regular, name, b"", b"x");
    let table: Vec<(&str, Vec<u8>, Code, Vec<&str>)> = vec![
        ("parent", archive(&[file(b"../etc/passwd")]), Code::InvalidArgument, vec!["../etc/passwd"]),
        ("inner", archive(&[file(b"a/../../b")]), Code::InvalidArgument, vec!["a/../../b"]),
        ("absolute", archive(&[file(b"/../etc/shadow")]), Code::InvalidArgument, vec!["/../etc/shadow"]),
        (
            "hardlink",
            archive(&[member(EntryType::Link, b"link", b"../../etc/shadow", b"")]),
            Code::InvalidArgument,
            vec!["link", "leads out of the tree"],
        ),
        (
            "nowhere",
            archive(&[member(EntryType::Link, b"link", b"not/there", b"")]),
            Code::InvalidArgument,
            vec!["link", "not/there"],
        ),
        ("cut", good()[..200_000].to_vec(), Code::InvalidArgument, vec!["good"]),
        ("noise", vec![0x5a; 4096], Code::InvalidArgument, vec!["layer"]),
    ];
    for (name, tar, code, words) in table {
        let layout = Layout::of(&Image::new(vec![tar]));
        eprintln!("{name}");
        node.refuses(&layout.reference("latest"), code, &words).await;
    }
    let layout = Layout::of(&Image::new(vec![good()]));
    node.still_serves(&layout.reference("latest")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_lead_outside_stay_inside() {
    let node = Node::start(&[&layouts()]).await;
    // A directory behind an absolute link: the file lands in the image's own /data, never in the node's.
    let image = archive(&[
        member(EntryType::Directory, b"data/", b"", b""),
        member(EntryType::Symlink, b"out", b"/data", b""),
        member(EntryType::Symlink, b"up", b"../../../../data", b""),
        member(EntryType::Regular, b"out/one", b"", b"1"),
        member(EntryType::Regular, b"up/two", b"", b"2"),
    ]);
    let layout = Layout::of(&Image::new(vec![image]));
    node.publish(&layout.reference("latest")).await.unwrap();
    let root = node.machine.target("pod");
    assert_eq!(std::fs::read(root.join("data/one")).unwrap(), b"1");
    assert_eq!(std::fs::read(root.join("data/two")).unwrap(), b"2");
    node.unpublish().await;
    node.machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_behind_a_link_is_refused() {
    let node = Node::start(&[&layouts()]).await;
    let layout = Layout::of(&Image::new(vec![good()]));
    let target = node.machine.target("pod");
    let elsewhere = node.machine.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &target).unwrap();
    let status = node.publish(&layout.reference("latest")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    assert!(status.message().contains(&target.display().to_string()), "{}", status.message());
    assert!(node.machine.published().is_empty() && !elsewhere.join("good").exists());
    std::fs::remove_file(&target).unwrap();
    node.still_serves(&layout.reference("latest")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_before_the_disk_is_full() {
    let node = Node::start(&[&layouts()]).await;
    // One sparse file that says it has 8 TiB.
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    let real = &mut header.as_gnu_mut().unwrap().realsize;
    // GNU's base-256 form: the top bit, then the number.
    real.fill(0);
    real[0] = 0x80;
    real[4..].copy_from_slice(&(8u64 << 40).to_be_bytes());
    header.set_cksum();
    let tar = archive(&[header.as_bytes().to_vec()]);
    let layout = Layout::of(&Image::new(vec![tar]));
    node.refuses(&layout.reference("latest"), Code::ResourceExhausted, &["bomb"]).await;

    // 256 MiB of zeros in 256 kB of gzip, behind the end of the archive: drained for the DiffID, held nowhere.
    let mut encoder = flate2::write::GzEncoder::new(good_gzip_prefix(), flate2::Compression::best());
    let zeros = vec![0u8; 1 << 20];
    for _ in 0..256 {
        encoder.write_all(&zeros).unwrap();
    }
    let blob = encoder.finish().unwrap();
    let mut layout = Layout::new();
    let image = Image {
        layers: vec![Layer { tar: blob, compression: Compression::None, media_type: Some(GZIP.into()) }],
        diff_ids: Some(vec![Digest::of(b"not looked at before the end")]),
        ..Image::new(Vec::new())
    };
    layout.add(&image, "latest");
    node.refuses(&layout.reference("latest"), Code::DataLoss, &["config claims"]).await;
    let resident = resident_peak(node.plugin.process.0.id());
    assert!(resident < 160 << 20, "{resident} bytes resident after 256 MiB of padding");
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The good archive as a gzip member, for another to follow.
fn good_gzip_prefix() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&good()).unwrap();
    encoder.finish().unwrap()
}

/// The largest resident set that a process has had, in bytes.
fn resident_peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_claims_anothers_layers_poisons_nothing() {
    let node = Node::start(&[&layouts()]).await;
    let victim = good();
    let evil = archive(&[member(EntryType::Regular, b"good", b"", b"evil")]);
    let mut layout = Layout::new();
    let claims = Image { diff_ids: Some(vec![Digest::of(&victim)]), ..Image::new(vec![evil]) };
    layout.add(&claims, "evil");
    layout.add(&Image::new(vec![victim]), "victim");
    node.refuses(&layout.reference("evil"), Code::DataLoss, &["config claims"]).await;
    node.still_serves(&layout.reference("victim")).await;
    node.refuses(&layout.reference("evil"), Code::DataLoss, &["config claims"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_their_digest_says_are_refused() {
    let registry = Registry::start(Options::default());
    let node = Node::start(&["--insecure-registry", &registry.host()]).await;
    for (name, damage, words) in [
        ("flipped", FLIP, ["sha256:"]),
        ("short", |bytes| bytes.truncate(bytes.len() / 2), ["sha256:"]),
        ("long", |bytes| bytes.extend_from_slice(b"more"), ["sha256:"]),
    ] {
        let tar = archive(&[member(EntryType::Regular, name.as_bytes(), b"", &good())]);
        let layer = Layer::new(tar).stored(Compression::None);
        let digest = Digest::of(&layer.tar);
        let layout = Layout::of(&Image { layers: vec![layer], ..Image::new(Vec::new()) });
        // skopeo would compress the layer on its way.
        let reference =
            registry.push(&layout.reference("latest"), &format!("bad/{name}:1"), &["--preserve-digests"]);
        let file = registry.blob_file(&digest.hex());
        let mut bytes = std::fs::read(&file).unwrap();
        damage(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        let status = node.publish(&reference).await.unwrap_err();
        assert!(matches!(status.code(), Code::DataLoss | Code::Unavailable), "{name}: {status}");
        for word in words {
            assert!(status.message().contains(word), "{name}: {}", status.message());
        }
        assert!(status.message().contains(&reference), "{name}: {}", status.message());
        node.unpublish().await;
        node.machine.assert_nothing_published();
    }
    let layout = Layout::of(&Image::new(vec![good()]));
    let reference = registry.push(&layout.reference("latest"), "good/app:1", &[]);
    node.still_serves(&reference).await;
}

const FLIP: fn(&mut Vec<u8>) = |bytes| {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
};
