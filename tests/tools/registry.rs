//! Pulling from Debian's real `docker-registry`, into which Debian's `skopeo` pushed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use composefs_csi::kind::Kind;
use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::limits::ImageLimits;
use composefs_csi::oci::manifest::{
    ACCEPTED_MEDIA_TYPES, Document, ImageConfig, LayerCompression, LayerForm, Manifest,
};
use composefs_csi::oci::platform::Choice;
use composefs_csi::oci::reference::{Reference, Version};
use composefs_csi::oci::{Credentials, RetryPolicy, Source, SourceError, SourceSettings, Sources, read_blob};
use futures_util::TryStreamExt as _;

use crate::support::images::{Compression, Flavour, Image, Layer, Layout};
use crate::support::registry::{Options, Registry, Running, free_port, make_certificates};
use crate::support::tools::installed;

const USER: (&str, &str) = ("pod", "a secret: with everything/in+it=");

fn settings() -> SourceSettings {
    let first_pause = Duration::from_millis(5);
    SourceSettings {
        retry: RetryPolicy { attempts: 3, first_pause, ..RetryPolicy::default() },
        read_timeout: Duration::from_secs(10),
        proxy_from_environment: false,
        ..SourceSettings::default()
    }
}

/// Settings with which `registry` can be reached.
fn trusting(registry: &Registry, options: Options) -> SourceSettings {
    let mut settings = settings();
    if options.tls {
        settings.ca_files.push(registry.ca_file());
    } else {
        settings.insecure_registries = BTreeSet::from([registry.host()]);
    }
    settings
}

fn open(settings: &SourceSettings, reference: &str, credentials: &Credentials) -> Arc<dyn Source> {
    let reference: Reference = reference.parse().unwrap();
    Sources::new(settings).unwrap().open(&reference, credentials).unwrap()
}

fn version(reference: &str) -> Version {
    reference.parse::<Reference>().unwrap().version()
}

/// Content that does not compress, so that sizes on the wire are as they seem.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    (0..length).map(|_| next()).collect()
}

fn layer(seed: u64) -> Layer {
    // Not a tar archive: this level moves bytes and does not look into them.
    Layer::new(noise(3_000_000, seed))
}

async fn manifest(source: &dyn Source, version: &Version) -> Manifest {
    let raw = source.manifest(version).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(source.resolve(version).await.unwrap(), raw.digest);
    assert_eq!(Digest::of(&raw.bytes), raw.digest);
    match Document::parse(&raw.bytes, raw.media_type.as_deref()) {
        Ok(Document::Image(manifest)) => manifest,
        other => panic!("{other:?}"),
    }
}

/// Reads a whole image and checks everything that it promises.
async fn check_image(source: &dyn Source, version: &Version, tars: &[&Layer]) {
    let manifest = manifest(source, version).await;
    let config = read_blob(source, &manifest.config, ImageLimits::DEFAULT.config_bytes).await.unwrap();
    let config = ImageConfig::parse(&config, manifest.layers.len()).unwrap();
    assert_eq!(manifest.layers.len(), tars.len());
    for ((layer, diff_id), tar) in manifest.layers.iter().zip(config.diff_ids).zip(tars) {
        let chunks: Vec<bytes::Bytes> =
            source.blob(&layer.descriptor).await.unwrap().try_collect().await.unwrap();
        assert!(chunks.len() > 1, "a layer comes as a stream");
        let blob = chunks.concat();
        assert_eq!(Digest::of(&blob), layer.descriptor.digest);
        assert_eq!(blob.len() as u64, layer.descriptor.size);
        let LayerForm::Archive(compression) = layer.form else { panic!("{:?}", layer.form) };
        let content = match compression {
            LayerCompression::None => blob,
            LayerCompression::Zstd => zstd::decode_all(&blob[..]).unwrap(),
            LayerCompression::Gzip => {
                let mut content = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(&blob[..]);
                std::io::Read::read_to_end(&mut decoder, &mut content).unwrap();
                content
            }
        };
        assert_eq!(Digest::of(&content), diff_id);
        assert!(content == tar.tar, "the layer's content came back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_password() {
    let options = Options { tls: true, user: Some(USER) };
    let registry = Registry::start(options);
    let layers = [layer(1), layer(2).stored(Compression::GzipMembers(4)), layer(3).stored(Compression::Zstd)];
    let image = Image { layers: layers.to_vec(), ..Image::new(Vec::new()) };
    let layout = Layout::of(&image);
    let reference = registry.push(&layout.reference("latest"), "team/app:v1", &[]);
    let trusting = trusting(&registry, options);
    let right = Credentials::parse(&registry.docker_config(USER.1)).unwrap();
    let expected: Vec<&Layer> = layers.iter().collect();
    check_image(&*open(&trusting, &reference, &right), &version(&reference), &expected).await;
    check_image(
        &*open(&trusting, &layout.reference("latest"), &right),
        &version(&layout.reference("latest")),
        &expected,
    )
    .await;

    let wrong = Credentials::parse(&registry.docker_config("wrong")).unwrap();
    for (credentials, says) in [(wrong, "were refused"), (Credentials::none(), "no credentials were sent")] {
        let source = open(&trusting, &reference, &credentials);
        for error in [
            source.resolve(&version(&reference)).await.unwrap_err(),
            source.manifest(&version(&reference)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Denied);
            let text = error.to_string();
            assert!(text.contains(&registry.host()) && text.contains(says), "{text}");
            assert!(text.contains("team/app:v1"), "{text}");
            assert!(!format!("{text} {error:?}").contains("secret: with"), "{text}");
        }
    }

    let untrusting = open(&settings(), &reference, &right);
    let error = untrusting.resolve(&version(&reference)).await.unwrap_err();
    assert!(matches!(error, SourceError::Certificate { .. }), "{error}");
    assert!(error.to_string().contains("CA files"), "{error}");

    let mut plain = settings();
    plain.insecure_registries.insert(registry.host());
    let error = open(&plain, &reference, &right).resolve(&version(&reference)).await.unwrap_err();
    assert!(matches!(error, SourceError::WantsTls { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_only_where_allowed() {
    let options = Options::default();
    let registry = Registry::start(options);
    let layers = [layer(4), layer(5).stored(Compression::None)];
    let image = Image { layers: layers.to_vec(), flavour: Flavour::Oci, ..Image::new(Vec::new()) };
    let layout = Layout::of(&image);
    let none = Credentials::none();
    let allowed = trusting(&registry, options);
    for (name, format) in [("oci:v1", "--format=oci"), ("docker:v1", "--format=v2s2")] {
        let reference = registry.push(&layout.reference("latest"), name, &[format]);
        check_image(&*open(&allowed, &reference, &none), &version(&reference), &layers.each_ref()).await;
        let error = open(&settings(), &reference, &none).resolve(&version(&reference)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, SourceError::PlainHttp { .. }), "{error}");
        assert!(error.to_string().contains("insecure registries"), "{error}");
    }
    let absent = format!("{}/oci:v2", registry.host());
    let source = open(&allowed, &absent, &none);
    let error = source.resolve(&version(&absent)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains(&absent), "{error}");
    let nowhere = Version::Digest(Digest::of(b"nowhere"));
    assert_eq!(source.manifest(&nowhere).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_platforms() {
    let options = Options::default();
    let registry = Registry::start(options);
    let platforms = ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6"];
    let images: Vec<Image> = platforms
        .iter()
        .zip(10..)
        .map(|(platform, seed)| Image {
            platform: (*platform).to_owned(),
            layers: vec![layer(seed)],
            ..Image::new(Vec::new())
        })
        .collect();
    let mut layout = Layout::new();
    layout.add_index(&images, "all");
    let reference = registry.push(&layout.reference("all"), "many:all", &["--all"]);
    for reference in [reference, layout.reference("all")] {
        let source = open(&trusting(&registry, options), &reference, &Credentials::none());
        let raw = source.manifest(&version(&reference)).await.unwrap();
        let parsed = Document::parse(&raw.bytes, raw.media_type.as_deref());
        let Ok(Document::Index(index)) = parsed else { panic!("{parsed:?}") };
        for (wanted, at) in [("linux/arm64", 1), ("linux/arm/v7", 2), ("linux/arm/v6", 3)] {
            let Ok(Choice::Entry(entry)) = index.choose(&wanted.parse().unwrap()) else { panic!("{wanted}") };
            let version = Version::Digest(entry.descriptor.digest);
            check_image(&*source, &version, &[&images[at].layers[0]]).await;
        }
        let error = index.choose(&"linux/s390x".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("linux/arm/v6"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_damaged_is_found() {
    let options = Options::default();
    let registry = Registry::start(options);
    let layout = Layout::of(&Image { layers: vec![layer(20)], ..Image::new(Vec::new()) });
    let reference = registry.push(&layout.reference("latest"), "damaged:v1", &[]);
    let source = open(&trusting(&registry, options), &reference, &Credentials::none());
    let digest = source.resolve(&version(&reference)).await.unwrap();
    let manifest = manifest(&*source, &version(&reference)).await;
    let layer = &manifest.layers[0].descriptor;

    // A file that lost its end: the registry now announces a smaller blob.
    let file = registry.blob_file(&layer.digest.hex());
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1000]).unwrap();
    let error = source.blob(layer).await.err().unwrap();
    assert!(matches!(error, SourceError::WrongSize { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Corrupt);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(source.blob(layer).await.err().unwrap().kind(), Kind::NotFound);

    let file = registry.blob_file(&digest.hex());
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes.insert(last, b' ');
    std::fs::write(&file, bytes).unwrap();
    let error = source.manifest(&version(&reference)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_not_there() {
    let registry = Registry::start(Options::default());
    let (reference, settings) = (format!("{}/x:1", registry.host()), trusting(&registry, Options::default()));
    drop(registry);
    let error = open(&settings, &reference, &Credentials::none()).resolve(&version(&reference)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
    assert_eq!(error.kind(), Kind::Transient);
}

/// A TLS server that answers requests for `v2/team/app/manifests/v1` with these bytes.
fn verbatim(answer: &str) -> (Running, tempfile::TempDir, SourceSettings, String) {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let manifests = directory.path().join("v2/team/app/manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    std::fs::write(manifests.join("v1"), answer).unwrap();
    let host = format!("127.0.0.1:{}", free_port());
    let mut command = std::process::Command::new(installed("openssl"));
    command.args(["s_server", "-HTTP", "-quiet", "-accept", &host]).current_dir(directory.path());
    command.args(["-cert", "keys/server.crt", "-key", "keys/server.key"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let server = Running(command.stderr(std::process::Stdio::null()).spawn().unwrap());
    let mut settings = settings();
    settings.ca_files.push(directory.path().join("trust/ca.crt"));
    settings.retry.attempts = 20;
    settings.retry.longest_pause = Duration::from_millis(200);
    (server, directory, settings, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_registry_cannot_send_us_to_plain_http() {
    for (answer, says) in [
        (
            "HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/v2/\r\nContent-Length: 0\r\n\r\n",
            "from https to plain http",
        ),
        (
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/token\"\r\n\
             Content-Length: 0\r\n\r\n",
            "http://127.0.0.1, which is not https",
        ),
    ] {
        let (_server, _directory, settings, host) = verbatim(answer);
        let json = format!(r#"{{"auths":{{"{host}":{{"username":"u","password":"hunter2"}}}}}}"#);
        let credentials = Credentials::parse(json.as_bytes()).unwrap();
        let reference = format!("{host}/team/app:v1");
        let error = open(&settings, &reference, &credentials).manifest(&version(&reference)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// `oci-client`, which docs/adr/0015-where-oci-client-is-used.md weighs, sees the same image as ours does.
#[tokio::test]
async fn an_independent_client_sees_the_same() {
    use oci_client::client::{ClientConfig, ClientProtocol};
    use oci_client::secrets::RegistryAuth;

    let registry = Registry::start(Options { tls: false, user: Some(USER) });
    let layout = Layout::of(&Image { layers: vec![layer(9)], ..Image::new(Vec::new()) });
    let reference = registry.push(&layout.reference("latest"), "team/app:v1", &[]);
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    let theirs = oci_client::Client::try_from(config).unwrap();
    let auth = RegistryAuth::Basic(USER.0.into(), USER.1.into());
    let (bytes, digest) =
        theirs.pull_manifest_raw(&reference.parse().unwrap(), &auth, &ACCEPTED_MEDIA_TYPES).await.unwrap();

    let settings = trusting(&registry, Options::default());
    let credentials = Credentials::parse(&registry.docker_config(USER.1)).unwrap();
    let ours = open(&settings, &reference, &credentials).manifest(&version(&reference)).await.unwrap();
    assert_eq!((ours.digest.to_string(), &ours.bytes[..]), (digest, &bytes[..]));
}
