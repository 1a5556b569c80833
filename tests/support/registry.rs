//! A real registry: Debian's `docker-registry` on a free loopback port, with its storage in a
//! temporary directory, ended when dropped.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::tools::installed;

/// What the registry asks of its clients.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// TLS with a certificate for 127.0.0.1 and localhost, by an authority of its own.
    pub tls: bool,
    /// User and password, asked for by HTTP Basic.
    pub user: Option<(&'static str, &'static str)>,
}

/// What few registries do.
#[derive(Debug)]
enum More {
    Nothing,
    ClientCertificates,
    /// It caches the registry at this URL.
    Upstream(String),
}

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    options: Options,
    port: u16,
    // The process goes before the directory that it writes to: fields drop in this order.
    _process: Running,
    directory: tempfile::TempDir,
}

/// A process that is ended when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// Starts a registry and waits until it accepts connections.
    pub fn start(options: Options) -> Self {
        Self::start_with(options, &More::Nothing)
    }

    /// Starts a registry with TLS that asks clients for a certificate, such as [`Registry::client_files`].
    pub fn start_for_certified() -> Self {
        Self::start_with(Options { tls: true, user: None }, &More::ClientCertificates)
    }

    /// Starts a pull-through cache of the registry at `upstream` (`HOST:PORT`, without TLS).
    pub fn mirror_of(upstream: &str) -> Self {
        Self::start_with(Options::default(), &More::Upstream(format!("http://{upstream}")))
    }

    fn start_with(options: Options, more: &More) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        if options.tls {
            make_certificates(directory.path());
        }
        if let Some(user) = options.user {
            fs::write(directory.path().join("htpasswd"), htpasswd(user)).expect("htpasswd is written");
        }
        for _ in 0..5 {
            let port = free_port();
            // Somebody else may take the port between its choice and its use.
            if let Some(process) = serve(directory.path(), port, (options, more)) {
                return Self { options, port, _process: process, directory };
            }
        }
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("docker-registry does not start:\n{log}");
    }

    /// Lets another user in; the registry reads the file anew when its time has changed.
    pub fn add_user(&self, user: (&str, &str)) {
        let path = self.directory.path().join("htpasswd");
        let mut lines = fs::read(&path).expect("this registry asks for nobody");
        lines.extend_from_slice(&htpasswd(user));
        fs::write(&path, lines).expect("htpasswd is written");
    }

    /// From now on only this user with this password is let in.
    pub fn set_user(&self, user: (&str, &str)) {
        fs::write(self.directory.path().join("htpasswd"), htpasswd(user)).expect("htpasswd is written");
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The PEM file of the authority to trust.
    pub fn ca_file(&self) -> PathBuf {
        assert!(self.options.tls, "this registry has no TLS");
        self.directory.path().join("trust/ca.crt")
    }

    /// A certificate that this registry takes from clients, and its key.
    pub fn client_files(&self) -> (PathBuf, PathBuf) {
        let keys = self.directory.path().join("keys");
        (keys.join("server.crt"), keys.join("server.key"))
    }

    /// The directory to give to podman, skopeo or buildah as `--cert-dir`.
    pub fn cert_dir(&self) -> PathBuf {
        self.directory.path().join("trust")
    }

    /// A docker config file's content with this registry's user and `password`.
    pub fn docker_config(&self, password: &str) -> Vec<u8> {
        let user = self.options.user.expect("this registry asks for nobody").0;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.host()).into_bytes()
    }

    /// Copies an image from anywhere that skopeo reads to `REPOSITORY[:TAG]` of this registry and
    /// returns the reference. `extra` are skopeo's own options, for example `--format=v2s2`.
    pub fn push(&self, from: &str, to: &str, extra: &[&str]) -> String {
        let reference = format!("{}/{to}", self.host());
        let mut skopeo = Command::new(installed("skopeo"));
        skopeo.args(["copy", "--quiet"]).args(extra);
        if self.options.tls {
            skopeo.arg("--dest-cert-dir").arg(self.cert_dir());
        } else {
            skopeo.arg("--dest-tls-verify=false");
        }
        if let Some((user, password)) = self.options.user {
            skopeo.arg(format!("--dest-creds={user}:{password}"));
        }
        run(skopeo.arg(from).arg(format!("docker://{reference}")));
        reference
    }

    /// Where the registry keeps its files, for tests that damage them.
    pub fn storage(&self) -> PathBuf {
        self.directory.path().join("storage")
    }

    /// The file of a blob, by the hexadecimal digits of its digest.
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self.storage().join("docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

fn htpasswd((user, password): (&str, &str)) -> Vec<u8> {
    // The cheapest bcrypt: the registry computes it at every request.
    run(Command::new(installed("htpasswd")).args(["-nbBC", "4", user, password]))
}

/// Runs a command and returns its output; a failure fails the test with what it said.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{said}");
    output.stdout
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
///
/// It lies below those that the kernel hands out by itself (ip_local_port_range): the tests that run at the same time
/// get a port for each connection and each `127.0.0.1:0`, and would soon get this one. Each call gives another port.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin at different ports.
    let start = std::process::id().wrapping_mul(64);
    let mut candidates = (0..COUNT).map(|_| {
        let at = start.wrapping_add(CALLS.fetch_add(1, Relaxed)) % COUNT;
        u16::try_from(FIRST + at).expect("a port")
    });
    candidates.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn serve(directory: &Path, port: u16, (options, more): (Options, &More)) -> Option<Running> {
    let config = directory.join("config.yml");
    fs::write(&config, configuration(directory, port, (options, more))).expect("config.yml is written");
    let log = fs::File::create(directory.join("log")).expect("a log file");
    let mut command = Command::new(installed("docker-registry"));
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut process = Running(command.spawn().expect("docker-registry is started"));
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        // Dead first: another process may be the one that accepts.
        if process.0.try_wait().expect("its state").is_some() {
            return None;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(process);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

fn configuration(directory: &Path, port: u16, (options, more): (Options, &More)) -> String {
    let at = directory.display();
    let mut text = format!(
        "version: 0.1\n\
         log: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {at}/storage}}, delete: {{enabled: true}}}}\n\
         http:\n  addr: 127.0.0.1:{port}\n  secret: only-for-uploads-in-tests\n"
    );
    if options.tls {
        let keys = format!("{at}/keys");
        let clients = match more {
            More::ClientCertificates => format!(", clientcas: [{keys}/ca.crt]"),
            _ => String::new(),
        };
        text += &format!("  tls: {{certificate: {keys}/server.crt, key: {keys}/server.key{clients}}}\n");
    }
    if options.user.is_some() {
        text += &format!("auth: {{htpasswd: {{realm: tests, path: {at}/htpasswd}}}}\n");
    }
    if let More::Upstream(url) = more {
        text += &format!("proxy: {{remoteurl: \"{url}\"}}\n");
    }
    text
}

/// An authority (`trust/ca.crt`) and a certificate by it (`keys/server.{key,crt}`) for 127.0.0.1,
/// both good for a day.
pub fn make_certificates(directory: &Path) {
    let (at, trust) = (directory.join("keys"), directory.join("trust"));
    for path in [&at, &trust] {
        fs::create_dir(path).expect("a directory for certificates");
    }
    let extensions = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n";
    fs::write(at.join("extensions"), extensions).expect("extensions are written");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let openssl = |arguments: &[&str]| {
        run(Command::new(installed("openssl")).current_dir(&at).args(arguments));
    };
    let subject = ["-subj", "/CN=authority of a test", "-keyout", "authority.key", "-out", "ca.crt"];
    openssl(&[&["req", "-x509", "-days", "1"], &key[..], &subject[..]].concat());
    let subject = ["-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"];
    openssl(&[&["req"], &key[..], &subject[..]].concat());
    let sign = ["x509", "-req", "-days", "1", "-in", "server.csr", "-out", "server.crt"];
    let by = ["-CA", "ca.crt", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "extensions"];
    openssl(&[&sign[..], &by[..]].concat());
    // Tools of the containers project refuse a directory that holds a key without its certificate.
    fs::copy(at.join("ca.crt"), trust.join("ca.crt")).expect("the authority is copied");
}
