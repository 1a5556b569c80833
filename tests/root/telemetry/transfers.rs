//! Where the bytes of layers came from, and how often a connection broke on the way.

use super::page::Watch;
use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};
use crate::support::registry::{Options, Registry, free_port};
use crate::support::shelf::{Ranges, Shelf};

const SIZE: usize = 3 << 20;

/// An image of one layer that no compression shrinks.
fn layout(name: &str) -> Layout {
    Layout::of(&Image::new(vec![archive(&[("file", &noise(name, SIZE))])]))
}

fn watch() -> (Watch, String) {
    let watch = Watch { address: format!("127.0.0.1:{}", free_port()) };
    let flag = format!("--metrics-listen={}", watch.address);
    (watch, flag)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_where_a_connection_broke_is_counted() {
    let shelf = Shelf::start(&layout("cut")).await;
    let (watch, metrics) = watch();
    let machine = Machine::new(&["--insecure-registry", &shelf.address.to_string(), &metrics]);
    let plugin = machine.start().await;
    let repeats = async |repeat: &str| {
        let series = format!("registry_repeats_total{{host=\"other\",repeat=\"{repeat}\"}}");
        watch.scrape().await.value(&series)
    };
    // Connections that bring a quarter of the layer each.
    shelf.make_of_ranges(Ranges::Cut(SIZE / 4));
    plugin.node.clone().node_publish_volume(machine.publish("a", &shelf.reference())).await.unwrap();
    let asked = shelf.take_asked();
    let again = (asked.len() - 1) as f64;
    assert!(again >= 4.0, "{asked:?}");
    assert_eq!((repeats("resumed").await, repeats("retried").await), (again, 0.0), "{asked:?}");
    let page = watch.scrape().await;
    let from = |place: &str| page.value(&format!("registry_received_bytes_total{{from=\"{place}\"}}"));
    assert!(from("origin") >= SIZE as f64 && from("origin") < 1.1 * SIZE as f64, "{}", from("origin"));
    assert_eq!(from("mirror"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_by_whether_a_mirror_or_the_registry_sent_them() {
    let (origin, mirror) = (Registry::start(Options::default()), Registry::start(Options::default()));
    let (both, one) = (layout("both"), layout("one"));
    for registry in [&origin, &mirror] {
        registry.push(&both.reference("latest"), "both:1", &[]);
    }
    origin.push(&one.reference("latest"), "one:1", &[]);
    let (watch, metrics) = watch();
    let mut machine = Machine::new(&["--insecure-registry", &origin.host(), &metrics]);
    let hosts = machine.path().join("certs.d");
    let directory = hosts.join(origin.host());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), format!("[host.\"http://{}\"]\n", mirror.host())).unwrap();
    machine.also(&format!("--registry-hosts-dir={}", hosts.display()));
    let plugin = machine.start().await;
    let pulled = async |name: &str| {
        let image = format!("{}/{name}:1", origin.host());
        plugin.node.clone().node_publish_volume(machine.publish(name, &image)).await.unwrap();
        let page = watch.scrape().await;
        let from = |place: &str| page.value(&format!("registry_received_bytes_total{{from=\"{place}\"}}"));
        (from("mirror"), from("origin"))
    };
    let size = SIZE as f64;
    let is_one = |bytes: f64| (size..1.1 * size).contains(&bytes);
    let first = pulled("both").await;
    assert!(is_one(first.0) && first.1 == 0.0, "{first:?}");
    // The mirror does not have it.
    let second = pulled("one").await;
    assert!(second.0 == first.0 && is_one(second.1), "{second:?}");
}
