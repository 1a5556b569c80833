//! The node under test: its disk, its clock, and the plugin, which comes and goes.

use std::path::PathBuf;
use std::time::Duration;

use composefs_csi::csi::proto::node_client::NodeClient;
use tokio::sync::RwLock;
use tonic::transport::Channel;

use crate::disk::Disk;
use crate::registry::{Registries, Registry};
use crate::support::driver::{Machine, Plugin};

/// A node.
#[derive(Debug)]
pub struct Node {
    // Fields drop in this order: the plugin ends, its mounts go, then its disk.
    plugin: RwLock<Option<Plugin>>,
    pub machine: Machine,
    pub disk: Disk,
    clock: PathBuf,
}

impl Node {
    /// A fresh node with a running plugin.
    pub async fn start(registries: &Registries) -> Self {
        let hosts: Vec<String> = registries.all().map(Registry::host).collect();
        let mut arguments = vec!["--gc-interval=5", "--gc-high=80", "--gc-low=60", "--pull-wait=5"];
        arguments.extend(hosts.iter().flat_map(|host| ["--insecure-registry", host]));
        let mut machine = Machine::new(&arguments);
        let clock = machine.path().join("clock");
        std::fs::write(&clock, "+0").expect("a file");
        // Only the wall clock: nobody can set the other one.
        machine.set_environment(&[
            ("LD_PRELOAD", &faketime().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]);
        let disk = Disk::mount(&machine.state());
        let plugin = machine.start().await;
        Self { plugin: RwLock::new(Some(plugin)), machine, disk, clock }
    }

    /// A client of the plugin that runs now, once one does.
    pub async fn client(&self) -> NodeClient<Channel> {
        loop {
            if let Some(plugin) = &*self.plugin.read().await {
                return plugin.node.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the plugin by `signal`, whatever it is doing, and starts the next one.
    pub async fn restart(&self, signal: rustix::process::Signal) {
        let mut plugin = self.plugin.write().await.take().expect("one plugin at a time");
        let pid = rustix::process::Pid::from_child(&plugin.process.0);
        rustix::process::kill_process(pid, signal).expect("it runs");
        // It drains for at most half a minute.
        tokio::task::spawn_blocking(move || plugin.process.0.wait())
            .await
            .expect("no panic")
            .expect("it ends");
        let next = self.machine.start().await;
        *self.plugin.write().await = Some(next);
    }

    /// Sets the plugin's clock by so many seconds before or after the true time.
    pub fn set_clock(&self, seconds: i64) {
        std::fs::write(&self.clock, format!("{seconds:+}")).expect("a file");
    }
}

/// Debian's libfaketime.
fn faketime() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").expect("/usr/lib");
    let found = directories
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    found.expect("libfaketime is installed; run scripts/setup.sh soak")
}
