//! What the machine itself takes at the same moment: the least that any program would have to do for a pod.
//!
//! A thread that is asked over a socket writes a small file beside the plugin's store, mounts a directory and answers. It
//! shares no code and no lock with the plugin, but the processors, the disk and the mount table. What befalls it too is not
//! the plugin's fault.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// The other side of the socket. Its thread ends with this value.
#[derive(Debug)]
pub struct Control(UnixStream);

impl Control {
    /// Works in `disk`, where it makes a directory of its own.
    pub fn start(disk: &Path) -> Self {
        let directory = disk.join("control");
        std::fs::create_dir_all(directory.join("source")).expect("a directory");
        std::fs::create_dir_all(directory.join("target")).expect("a directory");
        let (here, mut there) = Blocking::pair().expect("a pair of sockets");
        std::thread::spawn(move || {
            let mut asked = [0];
            while there.read_exact(&mut asked).is_ok() {
                let done = u8::from(serve(&directory).is_ok());
                if there.write_all(&[done]).is_err() {
                    return;
                }
            }
        });
        here.set_nonblocking(true).expect("a socket");
        Self(UnixStream::from_std(here).expect("a runtime"))
    }

    /// How long it takes now; `None` where the disk is full.
    pub async fn measure(&mut self) -> Option<Duration> {
        let started = Instant::now();
        self.0.write_all(&[1]).await.expect("the thread");
        let done = self.0.read_u8().await.expect("the thread");
        (done == 1).then(|| started.elapsed())
    }
}

/// A record, as the plugin keeps one for each volume, and a mount. The record is removed and the mount undone.
fn serve(directory: &Path) -> std::io::Result<()> {
    let [record, temporary, source, target] =
        ["record", "temporary", "source", "target"].map(|name| directory.join(name));
    std::fs::write(&temporary, [b'x'; 500])?;
    std::fs::rename(&temporary, &record)?;
    let mounted = mount(&source, &target);
    std::fs::remove_file(&record)?;
    mounted
}

fn mount(source: &PathBuf, target: &PathBuf) -> std::io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(rustix::fs::CWD, source, flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&clone, "", rustix::fs::CWD, target, flags)?;
    Ok(rustix::mount::unmount(target, UnmountFlags::DETACH)?)
}
