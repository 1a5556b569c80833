//! Several images in one volume, through the whole driver: four real registries, one of them with credentials; one mount,
//! one image, one copy of every file; each member judged and authorised by itself; what survives what. Needs root.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use composefs_csi::image::verity::VerityDigest;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::archive::{archive, noise};
use crate::support::artifacts::Artifact;
use crate::support::disk::SmallDisk;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layer, Layout};
use crate::support::registry::{Options, Registry};
use crate::support::wait::eventually;

const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
const MERGED: &str = "composefs.merged.erofs.v1.fsverity-sha256-12";
const PASSWORD: &str = "a secret of the adapter's team";

/// A base model, an adapter, a tokenizer and a Python environment, each in a registry of its own; the adapter's asks
/// for a password.
struct Models {
    base: Registry,
    adapter: Registry,
    tokenizer: Registry,
    python: Registry,
}

fn licence() -> Vec<u8> {
    noise("licence", 5_000)
}

impl Models {
    fn start() -> Self {
        let mut layout = Layout::new();
        let base = Artifact::new(MODEL)
            .model_file("model.safetensors", false, &noise("base", 3_000_000))
            .model_file("LICENSE", false, &licence())
            .add(&mut layout, "base");
        let adapter = Artifact::new(MODEL)
            .model_file("adapter.safetensors", false, &noise("adapter", 300_000))
            .model_file("LICENSE", false, &licence())
            .add(&mut layout, "adapter");
        let tokenizer = Artifact::new("application/vnd.example")
            .file("tokenizer.json", b"{\"tokens\": []}")
            .add(&mut layout, "tokenizer");
        let files: [(&str, &[u8]); 4] = [
            ("opt/", b""),
            ("opt/venv/", b""),
            ("opt/venv/lib.py", &noise("library", 10_000)),
            ("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
        ];
        layout.add(&Image { layers: vec![Layer::new(archive(&files))], ..Image::new(Vec::new()) }, "python");
        let private = Options { user: Some(("team", PASSWORD)), ..Options::default() };
        let all = Self {
            base: Registry::start(Options::default()),
            adapter: Registry::start(private),
            tokenizer: Registry::start(Options::default()),
            python: Registry::start(Options::default()),
        };
        all.base.push(&base, "models/base:1", &["--preserve-digests"]);
        all.adapter.push(&adapter, "private/adapter:1", &["--preserve-digests"]);
        all.tokenizer.push(&tokenizer, "models/tokenizer:1", &["--preserve-digests"]);
        all.python.push(&layout.reference("python"), "env/python:3", &[]);
        all
    }

    fn list(&self) -> String {
        format!(
            "\n- image: {}/models/base:1\n  at: model\n\
             - image: {}/private/adapter:1\n  at: model/adapters/law\n\
             - {{image: {}/models/tokenizer:1, at: model}}\n\
             - image: {}/env/python:3\n  at: /venv\n  path: opt/venv\n",
            self.base.host(),
            self.adapter.host(),
            self.tokenizer.host(),
            self.python.host()
        )
    }

    fn machine(&self, more: &[&str]) -> Machine {
        let registries = [&self.base, &self.adapter, &self.tokenizer, &self.python];
        let insecure: Vec<String> =
            registries.iter().map(|one| format!("--insecure-registry={}", one.host())).collect();
        Machine::new(&[&insecure.iter().map(String::as_str).collect::<Vec<_>>()[..], more].concat())
    }

    fn secret(&self) -> HashMap<String, String> {
        let config = String::from_utf8(self.adapter.docker_config(PASSWORD)).unwrap();
        HashMap::from([(".dockerconfigjson".to_owned(), config)])
    }
}

async fn publish(
    (machine, plugin): (&Machine, &Plugin),
    pod: &str,
    list: &str,
    secrets: HashMap<String, String>,
) -> Result<PathBuf, Status> {
    let mut request = machine.publish(pod, "");
    request.volume_context.remove("image");
    request.volume_context.insert("images".to_owned(), list.to_owned());
    request.secrets = secrets;
    plugin.node.clone().node_publish_volume(request).await?;
    Ok(machine.target(pod))
}

async fn unpublish((machine, plugin): (&Machine, &Plugin), pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

fn assert_shown(target: &Path) {
    let read = |path: &str| fs::read(target.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(read("model/model.safetensors") == noise("base", 3_000_000));
    assert!(read("model/adapters/law/adapter.safetensors") == noise("adapter", 300_000));
    assert_eq!(read("model/tokenizer.json"), b"{\"tokens\": []}");
    assert!(read("venv/lib.py") == noise("library", 10_000));
    assert!(!target.join("venv/etc").exists() && !target.join("etc").exists(), "only its directory is shown");
    // Of the image that brought it, as in a volume of its own.
    let mode = |path: &str| fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("venv"), mode("model"), mode("model/model.safetensors")), (0o751, 0o755, 0o444));
    assert!(fs::write(target.join("model/new"), b"x").is_err(), "read-only");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_registries_become_one_volume_that_outlives_the_plugin() {
    let models = Models::start();
    let machine = models.machine(&[]);
    let plugin = machine.start().await;
    let target = publish((&machine, &plugin), "pod", &models.list(), models.secret()).await.unwrap();
    assert_shown(&target);
    // One mount, and one copy of what two of them have.
    assert_eq!(machine.published(), vec![target.clone()]);
    let inode = |path: &str| fs::metadata(target.join(path)).unwrap();
    assert_eq!(inode("model/LICENSE").len(), 5_000);
    assert_eq!(inode("model/LICENSE").dev(), inode("venv/lib.py").dev());
    let listed = machine.run(&["ls"]);
    let images = listed["images"].as_array().unwrap();
    assert_eq!(images.len(), 5, "{listed}");
    // Five composefs images; base, adapter, licence and library.
    assert_eq!(listed["objects"], 9, "{listed}");
    let combined = images.iter().find(|image| image["members"].is_array()).unwrap().clone();
    assert_eq!(combined["mounted"], true, "{combined}");
    let members = combined["members"].as_array().unwrap();
    let told: Vec<_> = members.iter().map(|member| (&member["at"], &member["path"])).collect();
    assert_eq!(
        json!(told),
        json!([["model", ""], ["model/adapters/law", ""], ["model", ""], ["venv", "opt/venv"]])
    );
    let digest = combined["manifest"].as_str().unwrap();
    let files = machine.command(&["inspect", "--files", digest]).output().unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    assert!(
        files.contains("/model/adapters/law/adapter.safetensors ") && files.contains("/venv/lib.py "),
        "{files}"
    );

    // The next pod gets the same image: nothing is built again.
    let record =
        machine.state().join("store/images").join(format!("{}.json", digest.trim_start_matches("sha256:")));
    let before = fs::metadata(&record).unwrap().ino();
    let second = publish((&machine, &plugin), "second", &models.list(), models.secret()).await.unwrap();
    assert_shown(&second);
    assert_eq!(fs::metadata(&record).unwrap().ino(), before, "the record is as it was");
    assert_eq!(machine.log().matches("combined").count(), 1, "{}", machine.log_tail());
    unpublish((&machine, &plugin), "second").await;

    // kill -9; the mount stays, and so does all that it needs, the members included.
    drop(plugin);
    let plugin = machine.start().await;
    machine.run(&["prune"]);
    assert_shown(&target);
    assert_eq!(machine.run(&["ls"])["images"].as_array().unwrap().len(), 5, "members are kept");
    assert_eq!(machine.run(&["verify"])["damaged"], json!([]));
    let again = publish((&machine, &plugin), "again", &models.list(), models.secret()).await.unwrap();
    assert_shown(&again);
    unpublish((&machine, &plugin), "again").await;
    unpublish((&machine, &plugin), "pod").await;
    machine.assert_nothing_published();
    // The pulls of the other entries went on when the first had failed: kubelet asks again.
    eventually("nothing is left", || {
        machine.run(&["prune"]);
        let listed = machine.run(&["ls"]);
        (&listed["objects"], &listed["images"]) == (&json!(0), &json!([]))
    })
    .await;
}

/// What is damaged takes the whole away with the image that has it, and the next publish brings both back.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_takes_the_whole_away_and_the_next_publish_brings_it_back() {
    let models = Models::start();
    let machine = models.machine(&[]);
    let plugin = machine.start().await;
    publish((&machine, &plugin), "pod", &models.list(), models.secret()).await.unwrap();
    unpublish((&machine, &plugin), "pod").await;
    let combined = || {
        let listed = machine.run(&["ls"]);
        let images = listed["images"].as_array().unwrap().clone();
        images.into_iter().find(|image| image["members"].is_array())
    };
    let digest_of = |file: &str| VerityDigest::of(&noise(file, 300_000)).hex();
    let whole = combined().expect("the whole is listed");
    // A file of a member, and then the composefs image of the whole.
    let record = whole["manifest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let record = fs::read(machine.state().join("store/images").join(format!("{record}.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    for digest in [digest_of("adapter"), record["image"].as_str().unwrap().to_owned()] {
        let hex = digest.rsplit(':').next().unwrap();
        let object = machine.state().join("store/objects").join(&hex[..2]).join(&hex[2..]);
        // Where there is fs-verity it cannot be written to.
        fs::remove_file(&object).unwrap();
        fs::write(&object, b"damaged").unwrap();
        let verified = machine.command(&["verify"]).output().unwrap();
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(!verified.status.success() && said.contains(hex), "{said}");
        machine.command(&["verify", "--repair"]).output().unwrap();
        assert!(combined().is_none(), "the whole went with what is damaged");
        let target = publish((&machine, &plugin), "pod", &models.list(), models.secret()).await.unwrap();
        assert_shown(&target);
        assert_eq!(machine.run(&["verify"])["damaged"], json!([]));
        unpublish((&machine, &plugin), "pod").await;
    }
    machine.assert_nothing_published();
}

/// A disk without room: who has the whole keeps it, nobody gets half of it, and it is made when there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_combined_and_what_is_there_stays() {
    let models = Models::start();
    let machine = models.machine(&[]);
    let disk = SmallDisk::mount(&machine.state(), 32, 800);
    let plugin = machine.start().await;
    let target = publish((&machine, &plugin), "pod", &models.list(), models.secret()).await.unwrap();
    let other = models.list().replace("at: /venv", "at: /python");
    let filler = disk.fill_bytes();
    let refused = publish((&machine, &plugin), "other", &other, models.secret()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(machine.published(), vec![target.clone()]);
    // The plugin is started again on the full disk, and the pod sees no difference.
    drop(plugin);
    let plugin = machine.start().await;
    assert_shown(&target);
    drop(filler);
    let made = publish((&machine, &plugin), "other", &other, models.secret()).await.unwrap();
    assert!(fs::read(made.join("python/lib.py")).unwrap() == noise("library", 10_000));
    assert_shown(&target);
    assert_eq!(machine.run(&["verify"])["damaged"], json!([]));
    for pod in ["pod", "other"] {
        unpublish((&machine, &plugin), pod).await;
    }
    machine.assert_nothing_published();
}

/// Each image may be cut down by itself, and what is kept, found again and given away is the cut, not the whole.
#[tokio::test(flavor = "multi_thread")]
async fn of_each_image_only_what_is_chosen_is_in_the_volume() {
    let models = Models::start();
    let machine = models.machine(&[]);
    let plugin = machine.start().await;
    let list = |include: &str| {
        format!(
            "[{{image: {base}/models/base:1, at: a, include: {include}}}, {{image: {base}/models/base:1, at: b, exclude: {include}}},
              {{image: {}/models/tokenizer:1, at: /}}]",
            models.tokenizer.host(),
            base = models.base.host()
        )
    };
    let assert_cut = |target: &Path| {
        assert_eq!(fs::read(target.join("a/LICENSE")).unwrap(), licence());
        assert!(fs::read(target.join("b/model.safetensors")).unwrap() == noise("base", 3_000_000));
        assert!(!target.join("a/model.safetensors").exists() && !target.join("b/LICENSE").exists());
        assert!(target.join("tokenizer.json").exists());
    };
    let target = publish((&machine, &plugin), "pod", &list("LICENSE"), HashMap::new()).await.unwrap();
    assert_cut(&target);
    // kill -9, and the tag moves: the volume keeps what it shows, the cuts included.
    drop(plugin);
    let mut layout = Layout::new();
    let other = Artifact::new(MODEL).model_file("LICENSE", false, b"another").add(&mut layout, "other");
    models.base.push(&other, "models/base:1", &["--preserve-digests"]);
    let plugin = machine.start().await;
    machine.run(&["prune"]);
    assert_cut(&target);
    let images = || machine.run(&["ls"])["images"].as_array().unwrap().len();
    assert_eq!(images(), 4, "two cuts of one image, the tokenizer and the whole");
    assert_cut(&publish((&machine, &plugin), "pod", &list("LICENSE"), HashMap::new()).await.unwrap());
    // What is cut away of a new volume's images is an error where nothing of it is there.
    let status = publish((&machine, &plugin), "no", &list("'*.bin'"), HashMap::new()).await.unwrap_err();
    assert!(status.message().contains("entry 1") && status.message().contains("*.bin"), "{status}");
    unpublish((&machine, &plugin), "pod").await;
    machine.assert_nothing_published();
    // The pulls of the other entries went on when the first had failed: kubelet asks again.
    eventually("nothing is left", || {
        machine.run(&["prune"]);
        let listed = machine.run(&["ls"]);
        (&listed["objects"], &listed["images"]) == (&json!(0), &json!([]))
    })
    .await;
}

/// What is together is given to whom each part would be given, and nobody learns that it is here.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_to_one_image_gets_none() {
    let models = Models::start();
    let machine = models.machine(&[]);
    let plugin = machine.start().await;
    let before = publish((&machine, &plugin), "early", &models.list(), HashMap::new()).await.unwrap_err();
    let target = publish((&machine, &plugin), "owner", &models.list(), models.secret()).await.unwrap();
    assert_shown(&target);
    let status = publish((&machine, &plugin), "stranger", &models.list(), HashMap::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{}", status.message());
    let adapter = format!("entry 2 ({}/private/adapter:1)", models.adapter.host());
    assert!(status.message().contains(&adapter), "{}", status.message());
    assert_eq!(status.message(), before.message(), "the same as before it was here");
    assert_eq!(machine.published(), [target]);
    // Nor by the digest that the combined image is called by here.
    let listed = machine.run(&["ls"]);
    let images = listed["images"].as_array().unwrap();
    let digest = images.iter().find(|image| image["members"].is_array()).unwrap()["manifest"].clone();
    let named = format!("{}/models/base@{}", models.base.host(), digest.as_str().unwrap());
    let status = plugin.node.clone().node_publish_volume(machine.publish("guess", &named)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_refuses_one_image_refuses_all() {
    let models = Models::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.json");
    let write = |adapter: &str| {
        let all = json!([{"type": "insecureAcceptAnything"}]);
        let scope = format!("{}/private", models.adapter.host());
        let policy = json!({"default": all, "transports": {"docker": {scope: [{"type": adapter}]}}});
        fs::write(directory.path().join("new"), policy.to_string()).unwrap();
        fs::rename(directory.path().join("new"), &file).unwrap();
    };
    write("insecureAcceptAnything");
    let machine = models.machine(&[&format!("--policy={}", file.display())]);
    let plugin = machine.start().await;
    let target = publish((&machine, &plugin), "first", &models.list(), models.secret()).await.unwrap();
    write("reject");
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        match publish((&machine, &plugin), "second", &models.list(), models.secret()).await {
            Ok(_) => unpublish((&machine, &plugin), "second").await,
            Err(status) => break status,
        }
        assert!(Instant::now() < deadline, "the policy is not read again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(status.code(), Code::FailedPrecondition, "{}", status.message());
    assert!(
        status.message().contains("entry 2 (") && status.message().contains("policy"),
        "{}",
        status.message()
    );
    // What a pod has stays.
    assert_shown(&target);
    assert_eq!(machine.published(), [target]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_meet_must_agree() {
    let mut layout = Layout::new();
    let one =
        Artifact::new("application/vnd.example").file("x/a", b"1").file("same", b"s").add(&mut layout, "one");
    let two =
        Artifact::new("application/vnd.example").file("x/b", b"2").file("same", b"s").add(&mut layout, "two");
    let other = Artifact::new("application/vnd.example").file("x/a", b"3").add(&mut layout, "other");
    let blocked = Artifact::new("application/vnd.example").file("x", b"4").add(&mut layout, "blocked");
    let machine = Machine::new(&[&format!("--layout-dir={}", std::env::temp_dir().display())]);
    let plugin = machine.start().await;
    let here = (&machine, &plugin);
    let list = |images: &[&str]| {
        let entries = images.iter().map(|image| json!({"image": image, "at": "/"}));
        json!(entries.collect::<Vec<_>>()).to_string()
    };
    let target = publish(here, "merged", &list(&[&one, &two]), HashMap::new()).await.unwrap();
    let read = |path: &str| fs::read(target.join(path)).unwrap();
    assert_eq!((read("x/a"), read("x/b"), read("same")), (b"1".to_vec(), b"2".to_vec(), b"s".to_vec()));
    for (meeting, path) in [(&other, "\"/x/a\""), (&blocked, "\"/x\"")] {
        let status = publish(here, "refused", &list(&[&one, meeting]), HashMap::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
        for word in [path, one.as_str(), meeting.as_str(), "`at`"] {
            assert!(status.message().contains(word), "{word} is missing in {}", status.message());
        }
    }
    // A directory that is none, and one image twice.
    let absent = json!([{"image": one, "at": "/", "path": "nowhere"}]).to_string();
    let status = publish(here, "refused", &absent, HashMap::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    assert!(status.message().contains("nowhere"), "{}", status.message());
    unpublish(here, "refused").await;
    let twice = json!([{"image": one, "at": "a"}, {"image": one, "at": "b", "path": "x"}]).to_string();
    let target = publish(here, "twice", &twice, HashMap::new()).await.unwrap();
    assert_eq!(fs::read(target.join("a/x/a")).unwrap(), fs::read(target.join("b/a")).unwrap());
    // A directory outside of those that the operator allows.
    let outside = json!([{"image": one, "at": "a"}, {"image": "oci:/etc", "at": "b"}]).to_string();
    let status = publish(here, "outside", &outside, HashMap::new()).await.unwrap_err();
    assert!(status.message().contains("entry 2 (oci:/etc"), "{}", status.message());
}

/// One member is not what its seal says: it has no tree, and so there is none of them together.
#[tokio::test(flavor = "multi_thread")]
async fn a_seal_is_compared_before_anything_is_combined() {
    let mut layout = Layout::new();
    let good = Artifact::new("application/vnd.example").file("a", b"1").add(&mut layout, "good");
    let image = |annotations: &[(&str, &str)]| Image {
        annotations: annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Image::new(vec![archive(&[("usr/", b""), ("usr/b", &noise("b", 1_000))])])
    };
    layout.add(&image(&[]), "sealed");
    layout.add(&image(&[(MERGED, &"1".repeat(64))]), "forged");
    let (sealed, forged) = (layout.reference("sealed"), layout.reference("forged"));
    let machine = Machine::new(&[&format!("--layout-dir={}", std::env::temp_dir().display())]);
    machine.run(&["seal", &sealed]);
    let plugin = machine.start().await;
    let here = (&machine, &plugin);
    let list = |second: &str| json!([{"image": good, "at": "a"}, {"image": second, "at": "b"}]).to_string();
    let status = publish(here, "forged", &list(&forged), HashMap::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{}", status.message());
    assert!(status.message().contains(&format!("entry 2 ({forged})")), "{}", status.message());
    let listed = machine.run(&["ls"]);
    let images = listed["images"].as_array().unwrap();
    assert!(images.iter().all(|image| image["members"].is_null()), "{listed}");
    let target = publish(here, "pod", &list(&sealed), HashMap::new()).await.unwrap();
    assert!(fs::read(target.join("b/usr/b")).unwrap() == noise("b", 1_000));
    let listed = machine.run(&["ls"]);
    let images = listed["images"].as_array().unwrap();
    assert_eq!(images.iter().filter(|image| image["sealed"] == true).count(), 1, "{listed}");
    let combined = images.iter().find(|image| image["members"].is_array()).unwrap();
    let member = images.iter().find(|image| image["sealed"] == true).unwrap();
    assert_eq!(
        combined["members"][1]["image"], member["image"],
        "the sealed tree is the one that is combined"
    );
    assert_eq!(combined["sealed"], false, "its own digest nobody has signed");
}
