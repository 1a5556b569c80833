//! A registry of our own on the loopback interface, with the images in it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::fixtures::TAGS;

/// A running registry; it ends with this value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    host: String,
    port: u16,
    /// A home directory whose settings for skopeo say that this registry speaks plain HTTP.
    pub home: PathBuf,
}

impl Registry {
    /// Starts `docker-registry` on a free port and pushes every image of `cache/layout` that it lacks.
    pub fn start(cache: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (config, log) = (cache.join("registry.yml"), fs::File::create(cache.join("registry.log"))?);
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{ level: warn }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp: {{ addr: '127.0.0.1:{port}' }}\n",
                cache.join("registry").display()
            ),
        )?;
        let home = cache.join("home");
        fs::create_dir_all(home.join(".config/containers"))?;
        fs::write(
            home.join(".config/containers/registries.conf"),
            format!("[[registry]]\nlocation = \"127.0.0.1:{port}\"\ninsecure = true\n"),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry; run: make setup")?;
        let mut registry = Self { child, host: format!("127.0.0.1:{port}"), port, home };
        registry.wait(cache)?;
        for tag in TAGS {
            registry.push(&cache.join("layout"), tag)?;
        }
        Ok(registry)
    }

    /// `127.0.0.1:PORT/bench:TAG`
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/bench:{tag}", self.host)
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> &str {
        &self.host
    }

    fn wait(&mut self, cache: &Path) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("docker-registry ended with {status}; see {}", cache.join("registry.log").display());
            }
            ensure!(Instant::now() < deadline, "docker-registry does not answer on port {}", self.port);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Existing blobs are not sent again.
    pub fn push(&self, layout: &Path, tag: &str) -> Result<()> {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{}", self.reference(tag)))
            .output()
            .context("cannot run skopeo; run: make setup")?;
        ensure!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It holds nothing that a kill could lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
