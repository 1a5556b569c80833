//! Images that are mounted before their content is here, with fs-verity and `verity=require`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use composefs_csi::image::store::{NodeKey, Options, Store};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::mount::{KernelMounter, Mounter as _};
use composefs_csi::pull::{Caller, ImageRequest, PullLimits, PullPolicy, Puller, Start};
use composefs_csi::{Coming, End};

use crate::disk::drop_caches;
use crate::guest::{LENGTH, bench, start, whole};
use crate::support::archive::noise;
use crate::support::late::Late;
use crate::support::lazy_images::{Published, Told, publish};
use crate::support::mount::{Bench, content, mounts_below};
use crate::support::pulling::{accept_all, puller, request};
use crate::support::shelf::Shelf;

pub fn first_opens() -> String {
    let bench = bench("lazy-opens");
    let mounter = start(&bench);
    mounter.can_be_lazy().unwrap();
    let program = std::fs::read("/selinux/program").unwrap();
    let opened = crate::support::first_opens::all(&bench, &mounter, &program);
    assert_eq!(mounts_below(&bench.root).len(), 3, "the target, the base mount and where that is");
    format!("{opened} ways")
}

fn errno(path: &Path) -> i32 {
    std::fs::File::open(path).unwrap_err().raw_os_error().unwrap()
}

/// Whoever writes to the store without the store's code.
pub fn wrong_objects() -> String {
    let bench = bench("lazy-wrong");
    let mounter = start(&bench);
    let target = bench.target("a");
    let files =
        [("sealed", content(60, LENGTH)), ("unsealed", content(61, LENGTH)), ("right", content(62, LENGTH))];
    let late = Late::new(&bench, &files);
    let (mount, wanted) = late.mount(&mounter, &target);
    let kinds = [("sealed", content(63, LENGTH), true), ("unsealed", content(61, LENGTH), false)];
    for (name, bytes, sealed) in kinds {
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| errno(&target.join(name)));
            let object = wanted.recv().unwrap();
            bench.write_object(&object, &bytes, sealed);
            mount.arrivals().arrived(&object);
            assert_eq!(opening.join().unwrap(), libc::EIO, "{name}");
        });
    }
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| std::fs::read(target.join("right")).unwrap());
        let object = wanted.recv().unwrap();
        late.bring(&object, mount.arrivals());
        assert!(reading.join().unwrap() == files[2].1);
    });
    "EIO, EIO".into()
}

/// Readers that are killed, objects that come at any time, servers that end and begin.
pub fn stress() -> String {
    const FILES: usize = 60;
    let bench = bench("lazy-stress");
    let mounter = start(&bench);
    let names: Vec<String> = (0..FILES).map(|number| format!("f{number}")).collect();
    let files: Vec<_> =
        names.iter().enumerate().map(|(seed, name)| (name.as_str(), content(seed as u8, 5000))).collect();
    let late = Late::new(&bench, &files);
    let (done, reads, errors) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for reader in 0..6 {
            let (done, reads, errors, files, bench) = (&done, &reads, &errors, &files, &bench);
            scope.spawn(move || {
                let mut number = reader * 7;
                while !done.load(SeqCst) {
                    number += 1;
                    let (name, bytes) = &files[number % FILES];
                    let target = bench.root.join("targets").join(format!("t{}", number % 3));
                    match std::fs::read(target.join(name)) {
                        Ok(found) => {
                            assert!(found == *bytes, "{name}");
                            reads.fetch_add(1, SeqCst);
                        }
                        Err(error) => {
                            let stated = [libc::ENOTCONN, libc::ECONNABORTED];
                            // Before the mount there is no such file.
                            let early =
                                error.raw_os_error() == Some(libc::ENOENT) && !target.join("f0").exists();
                            let known = stated.contains(&error.raw_os_error().unwrap()) || early;
                            assert!(known, "{name}: {error}");
                            errors.fetch_add(1, SeqCst);
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                }
            });
        }
        for round in 0..3 {
            let target = bench.target(&format!("t{round}"));
            let (mount, wanted) = late.mount(&mounter, &target);
            let mut children = Vec::new();
            for number in 0..12 {
                let reader = Command::new("cat")
                    .arg(target.join(&names[(round * 20 + number) % FILES]))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                children.push(reader);
                // All may wait for what does not come.
                let object = wanted.recv_timeout(Duration::from_millis(500)).ok();
                if let (0, Some(object)) = (number % 2, object) {
                    late.bring(&object, mount.arrivals());
                }
                if number % 3 == 0 {
                    let mut killed = children.pop().unwrap();
                    killed.kill().unwrap();
                    killed.wait().unwrap();
                }
            }
            drop(mount);
            for mut child in children {
                // It has its bytes or an error, and waits no more.
                child.wait().unwrap();
            }
        }
        late.contents.keys().for_each(|object| late.write(object));
        std::thread::sleep(Duration::from_millis(500));
        done.store(true, SeqCst);
    });
    drop_caches();
    for (name, bytes) in &files {
        for round in 0..3 {
            assert!(std::fs::read(bench.root.join(format!("targets/t{round}/{name}"))).unwrap() == *bytes);
        }
    }
    format!("{} reads, {} errors as stated", reads.load(SeqCst), errors.load(SeqCst))
}

/// A node: a sealed store, a puller, a mounter.
struct Pulling {
    bench: Bench,
    store: Arc<Store>,
    mounter: KernelMounter,
}

impl Pulling {
    fn new(name: &str) -> Self {
        let bench = bench(name);
        std::fs::remove_dir_all(bench.store()).unwrap();
        let key = Options::new(NodeKey::from_bytes(&[42; 32]));
        let store = Arc::new(Store::open(&bench.store(), key).unwrap());
        let mounter = start(&bench);
        Self { bench, store, mounter }
    }

    fn puller(&self, shelf: &Shelf) -> Puller {
        puller(&self.store, &[shelf.address.to_string()], &accept_all(), PullLimits::default())
    }

    /// Mounts lazily what the shelf has.
    async fn mount(&self, puller: &Puller, shelf: &Shelf, image: VerityDigest) -> (Coming, PathBuf) {
        let request =
            ImageRequest { caller: Caller::Mount, ..request(&shelf.reference(), PullPolicy::Always) };
        let started = match puller.start(&request).await.unwrap() {
            Start::Lazily(started) => started,
            other => panic!("{other:?}"),
        };
        assert_eq!(started.image.seal.digest, image);
        let target = self.bench.target("lazy");
        let spec = whole(image);
        let coming =
            Coming::mount(puller, &self.mounter, &self.store, request, *started, (&spec, &target)).unwrap();
        (coming, target)
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    std::fs::create_dir_all(std::env::temp_dir()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

async fn read(path: PathBuf) -> std::io::Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || std::fs::read(path)).await.unwrap()
}

/// Two layers, the first of which comes at once.
async fn two_layers(told: Told) -> (Published, Vec<u8>, Vec<u8>, Vec<u8>) {
    let (first, second, third) = (noise("first", 40_000), noise("second", 2 << 20), noise("third", 50_000));
    let layers: [&[(&str, &[u8])]; 2] = [&[("first", &first)], &[("second", &second), ("third", &third)]];
    (publish(&layers, told).await, first, second, third)
}

pub fn pulled() -> String {
    run(async {
        let (published, first, second, third) = two_layers(Told::Stream).await;
        let shelf = Shelf::start(&published.layout).await;
        shelf.pace(400_000);
        let node = Pulling::new("lazy-pulled");
        let puller = node.puller(&shelf);
        let begun = Instant::now();
        let (coming, target) = node.mount(&puller, &shelf, published.image).await;
        let mounted = begun.elapsed();
        let reads = async {
            let first_found = read(target.join("first")).await.unwrap();
            let early = begun.elapsed();
            let third_found = read(target.join("third")).await.unwrap();
            (first_found, early, third_found, begun.elapsed())
        };
        let (end, (first_found, early, third_found, late)) = tokio::join!(coming.complete(&puller), reads);
        assert_eq!(end.unwrap(), End::Complete);
        assert!(first_found == first && third_found == third);
        // As any other now: nobody answers, and nobody needs to.
        drop_caches();
        assert!(read(target.join("second")).await.unwrap() == second);
        let record = node.store.images().list().unwrap().images.remove(0).record;
        assert_eq!(record.image, published.image);
        node.mounter.unmount(&target).unwrap();
        node.mounter.release(&published.image).unwrap();
        assert_eq!(mounts_below(&node.bench.root).len(), 1);
        format!(
            "mounted after {} ms, the first file read after {}, the last after {}",
            mounted.as_millis(),
            early.as_millis(),
            late.as_millis()
        )
    })
}

pub fn ranges() -> String {
    run(async {
        let mut figures = Vec::new();
        for told in [Told::Ranges, Told::Lies] {
            let (published, _, second, third) = two_layers(told).await;
            let shelf = Shelf::start(&published.layout).await;
            shelf.pace(200_000);
            let node = Pulling::new(if told == Told::Lies { "lazy-lies" } else { "lazy-ranges" });
            let puller = node.puller(&shelf);
            let (coming, target) = node.mount(&puller, &shelf, published.image).await;
            let reads = async {
                let found = read(target.join("third")).await.unwrap();
                let sent = shelf.sent();
                (found, sent, read(target.join("second")).await.unwrap())
            };
            let (end, (third_found, sent, second_found)) = tokio::join!(coming.complete(&puller), reads);
            assert_eq!(end.unwrap(), End::Complete);
            assert!(third_found == third && second_found == second);
            if told == Told::Ranges {
                assert!(sent < 3 << 19, "it came before what lies before it: {sent}");
            }
            figures.push(format!("{told:?}: {} KiB sent before the last file", sent >> 10));
        }
        figures.join(", ")
    })
}

pub fn dead_command() -> String {
    run(async {
        let (published, _, second, _) = two_layers(Told::Stream).await;
        let shelf = Shelf::start(&published.layout).await;
        shelf.pace(200_000);
        let node = Pulling::new("lazy-dead");
        let puller = node.puller(&shelf);
        let (coming, target) = node.mount(&puller, &shelf, published.image).await;
        let path = target.join("second");
        let reading = tokio::spawn(read(path.clone()));
        // The command is killed while somebody waits.
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(coming);
        let failed = reading.await.unwrap().unwrap_err();
        let errnos = [libc::ECONNABORTED, libc::ENOTCONN];
        assert!(errnos.contains(&failed.raw_os_error().unwrap()), "{failed}");
        assert_eq!(errno(&path), libc::ENOTCONN);
        // A later pull of the image heals what is mounted.
        shelf.pace(0);
        let wanted =
            ImageRequest { caller: Caller::Mount, ..request(&shelf.reference(), PullPolicy::Always) };
        let ready = composefs_csi::pull::Images::ensure(&puller, &wanted).await.unwrap();
        assert_eq!(ready.image, published.image);
        assert!(read(path).await.unwrap() == second);
        format!("{failed}")
    })
}
