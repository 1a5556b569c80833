//! What has been received of a layer, over kill -9, beside commands and other tenants, and on small disks: the program
//! itself and a real registry. Needs root.

use std::collections::HashMap;
use std::path::PathBuf;

use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::archive::{archive, noise};
use crate::support::disk::SmallDisk;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const MIB: u64 = 1 << 20;
const ALICE: (&str, &str) = ("alice", "wonderland");
const BOB: (&str, &str) = ("bob", "builder");

/// A layer of one file that no compression shrinks.
fn layer(name: &str, mebibytes: u64) -> Vec<u8> {
    archive(&[(name, &noise(name, (mebibytes * MIB) as usize))])
}

/// A registry behind a proxy, with an image of layers of so many MiB.
async fn served(sizes: &[u64], options: Options) -> (Registry, Proxy, String) {
    let registry = Registry::start(options);
    let layers = sizes.iter().enumerate().map(|(number, size)| layer(&format!("file-{number}"), *size));
    registry.push(&Layout::of(&Image::new(layers.collect())).reference("latest"), "team/app:1", &[]);
    let proxy = Proxy::start(&registry.host()).await;
    let reference = format!("{}/team/app:1", proxy.address);
    (registry, proxy, reference)
}

fn machine(proxy: &Proxy) -> Machine {
    Machine::new(&["--insecure-registry", &proxy.address.to_string(), "--range-size=1"])
}

/// Starts a publish, with a pull secret if one is given, and returns at once.
fn publish(
    (plugin, machine): (&Plugin, &Machine),
    pod: &str,
    image: &str,
    who: Option<(&str, &str)>,
) -> JoinHandle<Result<(), tonic::Status>> {
    let (mut node, mut request) = (plugin.node.clone(), machine.publish(pod, image));
    if let Some((user, password)) = who {
        let host = image.split('/').next().unwrap();
        let config = format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#);
        request.secrets = HashMap::from([(".dockerconfigjson".to_owned(), config)]);
    }
    tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) })
}

/// kill -9.
fn kill(plugin: &mut Plugin) {
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
}

/// The files of partial blobs.
fn partials(machine: &Machine) -> Vec<PathBuf> {
    let Ok(boots) = std::fs::read_dir(machine.state().join("store/partial")) else { return Vec::new() };
    let files = boots.flat_map(|boot| std::fs::read_dir(boot.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_hardly_a_byte_is_fetched_twice() {
    let (_registry, proxy, reference) = served(&[64, 8], Options::default()).await;
    let machine = machine(&proxy);
    // Without a limit nobody could tell where in the pull it is.
    proxy.throttle(4 * MIB);
    const KILLS: u64 = 8;
    for round in 0..KILLS {
        let mut plugin = machine.start().await;
        let waiting = publish((&plugin, &machine), "a", &reference, None);
        proxy.pass(7 * MIB).await;
        kill(&mut plugin);
        assert!(waiting.await.unwrap().is_err());
        assert!(machine.published().is_empty(), "{round}");
    }
    let plugin = machine.start().await;
    proxy.throttle(0);
    publish((&plugin, &machine), "a", &reference, None).await.unwrap().unwrap();
    assert!(machine.target("a").join("file-1").exists());
    // Of each kill: what was on its way on five connections, and has not been written yet.
    let (passed, image) = (proxy.passed(), 72 * MIB);
    assert!(passed < image + KILLS * 3 * MIB, "{passed} bytes for an image of {image}");
    assert_eq!(partials(&machine), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_a_collection_in_between_goes_on() {
    let (_registry, proxy, reference) = served(&[24], Options::default()).await;
    let machine = machine(&proxy);
    proxy.throttle(4 * MIB);
    let mut plugin = machine.start().await;
    let waiting = publish((&plugin, &machine), "a", &reference, None);
    proxy.pass(12 * MIB).await;
    // SIGTERM, as the kubelet ends a plugin.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(plugin.process.0.id().cast_signed()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    plugin.process.0.wait().unwrap();
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(partials(&machine).len(), 1);
    // Housekeeping where there is room takes nothing that another pull may go on with.
    machine.run(&["prune", "--watermark", "--gc-high=99", "--gc-low=98"]);
    assert_eq!(partials(&machine).len(), 1);
    proxy.throttle(0);
    let before = proxy.passed();
    let plugin = machine.start().await;
    publish((&plugin, &machine), "a", &reference, None).await.unwrap().unwrap();
    assert!(proxy.passed() - before < 16 * MIB, "{}", proxy.passed() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_tenant_has_received_serves_no_other() {
    let (registry, proxy, reference) =
        served(&[24], Options { user: Some(ALICE), ..Options::default() }).await;
    registry.add_user(BOB);
    let machine = machine(&proxy);
    proxy.throttle(4 * MIB);
    let mut plugin = machine.start().await;
    let alices = publish((&plugin, &machine), "a", &reference, Some(ALICE));
    proxy.pass(12 * MIB).await;
    kill(&mut plugin);
    assert!(alices.await.unwrap().is_err());
    let plugin = machine.start().await;
    proxy.throttle(0);
    // A stranger gets nothing, and neither does Bob before all has been sent to him.
    for who in [None, Some(("mallory", "guess"))] {
        let refused = publish((&plugin, &machine), "m", &reference, who).await.unwrap().unwrap_err();
        assert!(matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated), "{refused}");
    }
    let before = proxy.passed();
    publish((&plugin, &machine), "b", &reference, Some(BOB)).await.unwrap().unwrap();
    let bobs = proxy.passed() - before;
    assert!(bobs >= 24 * MIB, "{bobs} bytes tell that somebody had the image");
    assert_eq!(partials(&machine).len(), 1, "Alice's");
    // The image is here now: she proves that she may have it, and nothing comes again.
    let before = proxy.passed();
    publish((&plugin, &machine), "a", &reference, Some(ALICE)).await.unwrap().unwrap();
    assert!(proxy.passed() - before < MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_credentials_get_nothing_of_what_they_had_received() {
    let (registry, proxy, reference) =
        served(&[24], Options { user: Some(ALICE), ..Options::default() }).await;
    let machine = machine(&proxy);
    proxy.throttle(4 * MIB);
    let mut plugin = machine.start().await;
    let alices = publish((&plugin, &machine), "a", &reference, Some(ALICE));
    proxy.pass(12 * MIB).await;
    kill(&mut plugin);
    assert!(alices.await.unwrap().is_err());
    registry.set_user(BOB);
    proxy.throttle(0);
    let plugin = machine.start().await;
    let refused = publish((&plugin, &machine), "a", &reference, Some(ALICE)).await.unwrap().unwrap_err();
    assert!(matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated), "{refused}");
    assert!(!machine.target("a").join("file-0").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_and_the_plugin_go_on_with_each_others_layers() {
    let (_registry, proxy, reference) = served(&[24], Options::default()).await;
    let machine = machine(&proxy);
    proxy.throttle(4 * MIB);
    let mut command = machine.command(&["pull", &reference]).spawn().unwrap();
    proxy.pass(12 * MIB).await;
    // While the command has the file, the plugin fetches without.
    let plugin = machine.start().await;
    let beside = publish((&plugin, &machine), "a", &reference, None);
    proxy.pass(4 * MIB).await;
    command.kill().unwrap();
    command.wait().unwrap();
    proxy.throttle(0);
    beside.await.unwrap().unwrap();
    drop(plugin);
    // What the command left serves the next one, though the layer is here already: it is of no use, and idle.
    assert!(machine.target("a").join("file-0").exists());
    // Another image, begun by a command and ended by the plugin.
    let (_registry, proxy, reference) = served(&[25], Options::default()).await;
    let machine = self::machine(&proxy);
    proxy.throttle(4 * MIB);
    let mut command = machine.command(&["pull", &reference]).spawn().unwrap();
    proxy.pass(15 * MIB).await;
    command.kill().unwrap();
    command.wait().unwrap();
    proxy.throttle(0);
    let before = proxy.passed();
    let plugin = machine.start().await;
    publish((&plugin, &machine), "a", &reference, None).await.unwrap().unwrap();
    assert!(proxy.passed() - before < 14 * MIB, "{}", proxy.passed() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_little_room_layers_come_without_being_kept() {
    let (_registry, proxy, reference) = served(&[40], Options::default()).await;
    let machine = machine(&proxy);
    // Four times the layer is not there.
    let _disk = SmallDisk::mount(&machine.state(), 150, 800);
    let plugin = machine.start().await;
    proxy.throttle(8 * MIB);
    let waiting = publish((&plugin, &machine), "a", &reference, None);
    proxy.pass(8 * MIB).await;
    assert_eq!(partials(&machine), Vec::<PathBuf>::new());
    proxy.throttle(0);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_ends_the_keeping_and_not_the_pull() {
    let (_registry, proxy, reference) = served(&[40], Options::default()).await;
    let machine = machine(&proxy);
    let _disk = SmallDisk::mount(&machine.state(), 300, 800);
    let plugin = machine.start().await;
    proxy.throttle(2 * MIB);
    let waiting = publish((&plugin, &machine), "a", &reference, None);
    proxy.pass(4 * MIB).await;
    assert_eq!(partials(&machine).len(), 1);
    // Somebody else leaves room for the layer's files, and none for its blob beside them.
    let free = rustix::fs::statvfs(machine.state()).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    let filler = machine.state().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let zeros = vec![1; MIB as usize];
    for _ in 0..(free - 60 * MIB) / MIB {
        std::io::Write::write_all(&mut file, &zeros).unwrap();
    }
    file.sync_all().unwrap();
    proxy.throttle(8 * MIB);
    waiting.await.unwrap().unwrap();
    assert_eq!(partials(&machine), Vec::<PathBuf>::new());
    assert!(machine.log().contains("goes on without keeping"), "{}", machine.log_tail());
    assert!(proxy.passed() < 60 * MIB, "it goes on where it was");
}
