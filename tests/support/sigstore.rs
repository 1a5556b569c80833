//! A sigstore of our own (`tests/sigstore`) and the cosigns that use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::registry::{Running, run};
use super::tools::{debian, installed, sigstore};

/// The issuer in every token.
pub const ISSUER: &str = "https://issuer.test";

/// A running sigstore.
#[derive(Debug)]
pub struct Sigstore {
    pub url: String,
    _process: Running,
    directory: tempfile::TempDir,
}

impl Sigstore {
    /// Starts one with keys and certificates of its own, and describes it for cosign 3.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = fs::File::create(directory.path().join("log")).expect("a log file");
        let mut command = Command::new(sigstore());
        command.arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Running(command.spawn().expect("the sigstore is started"));
        let deadline = Instant::now() + Duration::from_secs(120);
        let url = loop {
            if let Ok(url) = fs::read_to_string(directory.path().join("url")) {
                break url;
            }
            let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the sigstore does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let started = Self { url, _process: process, directory };
        started.describe();
        started
    }

    fn describe(&self) {
        let (url, since) = (&self.url, "start-time=2024-01-01T00:00:00Z");
        let file = |name| self.file(name).display().to_string();
        let cosign = Cosign::three();
        let mut root = cosign.command();
        root.args(["trusted-root", "create", "--out"]).arg(self.file("root.json"));
        root.arg(format!("--fulcio=url={url},certificate-chain={},{since}", file("fulcio.pem")));
        root.arg(format!("--rekor=url={url},public-key={},{since}", file("rekor.pub")));
        root.arg(format!("--ctfe=url={url}/ct,public-key={},{since}", file("ctfe.pub")));
        root.arg(format!("--tsa=url={url}/api/v1/timestamp,certificate-chain={},{since}", file("tsa.pem")));
        run(&mut root);
        let service = |path: &str| format!("url={url}{path},api-version=1,operator=tests,{since}");
        let (rekor, tsa) =
            (format!("--rekor={}", service("")), format!("--tsa={}", service("/api/v1/timestamp")));
        for (name, fulcio, services) in [
            ("none", "", vec![]),
            ("log", "", vec![rekor.as_str(), "--rekor-config=ANY"]),
            ("expired", "/expired", vec![rekor.as_str(), "--rekor-config=ANY"]),
            ("stamp", "", vec![tsa.as_str(), "--tsa-config=ANY"]),
        ] {
            let mut config = cosign.command();
            config.args(["signing-config", "create", "--out"]).arg(self.config(name));
            run(config.arg(format!("--fulcio={}", service(fulcio))).args(services));
        }
    }

    /// `fulcio.pem`, `rekor.pub`, `ctfe.pub`, `tsa.pem` or `root.json`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The content of one.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("a file of the sigstore")
    }

    /// Cosign 3's signing config: `none`, `log`, `expired` (with a log) or `stamp` (a time stamp and no log).
    pub fn config(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("signing-{name}.json"))
    }
}

/// A cosign of some version.
#[derive(Debug)]
pub struct Cosign {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Cosign {
    /// Debian trixie's 2.5.
    pub fn two() -> Self {
        Self { program: debian("cosign-2", "cosign"), home: tempfile::tempdir().expect("a directory") }
    }

    /// Debian sid's 3.1.
    pub fn three() -> Self {
        Self { program: debian("cosign", "cosign"), home: tempfile::tempdir().expect("a directory") }
    }

    /// A command without the user's settings and with an empty password for keys.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.home.path()).env("COSIGN_PASSWORD", "").env_remove("DOCKER_CONFIG");
        command.stdin(Stdio::null());
        command
    }

    /// The same, trusting `sigstore` by the variables that cosign 2 and the old formats of cosign 3 read.
    pub fn command_with(&self, sigstore: &Sigstore) -> Command {
        let mut command = self.command();
        command.env("SIGSTORE_REKOR_PUBLIC_KEY", sigstore.file("rekor.pub"));
        command.env("SIGSTORE_CT_LOG_PUBLIC_KEY_FILE", sigstore.file("ctfe.pub"));
        command.env("SIGSTORE_ROOT_FILE", sigstore.file("fulcio.pem"));
        command
    }
}

/// A key pair as cosign has it: `NAME.key` and `NAME.pub`.
#[derive(Debug)]
pub struct Key {
    directory: tempfile::TempDir,
}

impl Key {
    /// `p256`, `p384`, `p521`, `rsa2048`, `rsa4096` or `ed25519`, made by OpenSSL.
    pub fn generate(kind: &str) -> Self {
        let key = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let pem = key.directory.path().join("openssl.pem");
        let mut openssl = Command::new(installed("openssl"));
        match kind {
            "p256" => openssl.args(["ecparam", "-genkey", "-noout", "-name", "prime256v1"]),
            "p384" => openssl.args(["ecparam", "-genkey", "-noout", "-name", "secp384r1"]),
            "p521" => openssl.args(["ecparam", "-genkey", "-noout", "-name", "secp521r1"]),
            "rsa2048" | "rsa4096" => openssl.args(["genrsa", "-traditional"]),
            other => openssl.args(["genpkey", "-algorithm", other]),
        };
        openssl.arg("-out").arg(&pem);
        openssl.args(kind.strip_prefix("rsa"));
        run(&mut openssl);
        // Cosign 2.5 of Debian cannot import EC and RSA keys; it reads what cosign 3 imported.
        let mut import = Cosign::three().command();
        import.arg("import-key-pair").arg("--key").arg(&pem).arg("--output-key-prefix");
        run(import.arg(key.directory.path().join("key")).arg("--yes"));
        key
    }

    /// The encrypted private key.
    pub fn private(&self) -> PathBuf {
        self.directory.path().join("key.key")
    }

    /// The public key's PEM.
    pub fn public(&self) -> Vec<u8> {
        fs::read(self.directory.path().join("key.pub")).expect("the public key")
    }
}

/// An identity token for `subject`: an e-mail address, or a URI.
pub fn token(subject: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
    let mut claims = json!({"iss": ISSUER, "aud": "sigstore", "sub": subject, "iat": now, "exp": now + 3600});
    if subject.contains('@') {
        claims["email"] = subject.into();
        claims["email_verified"] = true.into();
    }
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    let header = part(json!({"alg": "RS256", "typ": "JWT"}).to_string());
    format!("{header}.{}.{}", part(claims.to_string()), part("x".repeat(256)))
}

/// What a command said, both streams.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// The directory of a crate's source as cargo has it.
pub fn crate_source(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // Crates of other platforms were never downloaded.
    cargo.args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=host-tuple"]);
    let metadata: serde_json::Value =
        serde_json::from_slice(&run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")))).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages.iter().find(|package| package["name"] == name).expect("the crate");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Path::new(manifest).parent().expect("a directory").to_owned()
}
