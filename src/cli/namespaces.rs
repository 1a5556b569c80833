//! `store du --by namespace`: what the pods of each namespace keep.

use serde::Serialize;

use super::args::Output;
use super::output::{self, bytes, count};
use super::store::bar;
use crate::app::engine::Engine;
use crate::image::store::{Keepers, NamespaceUsage};
use crate::text;

#[derive(Serialize)]
struct Row {
    /// `null` of volumes whose namespace is not known.
    namespace: Option<String>,
    volumes: u64,
    images: u64,
    /// Bytes of their images, each object once.
    total_bytes: u64,
    /// Bytes that nothing else keeps.
    alone_bytes: u64,
    /// Bytes that something else keeps, too.
    shared_bytes: u64,
}

#[derive(Serialize)]
struct Listing {
    namespaces: Vec<Row>,
    /// Bytes that pins, prefetches, pulls and mounts by hand keep, and no volume.
    others_bytes: u64,
    /// Bytes that nothing keeps.
    idle_bytes: u64,
}

/// `store du --by namespace`.
pub fn du(engine: &Engine, output: Output) -> anyhow::Result<()> {
    let mounted = || engine.mounted_images().map_err(|error| error.to_string());
    let Keepers { namespaces, others, idle } = engine.store.keepers(&mounted)?;
    let mut rows: Vec<Row> = namespaces.into_iter().map(Row::of).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.alone_bytes));
    let listing = Listing { namespaces: rows, others_bytes: others, idle_bytes: idle };
    output::show(output, &listing, Listing::text)
}

impl Row {
    fn of(usage: NamespaceUsage) -> Self {
        Self {
            total_bytes: usage.total,
            alone_bytes: usage.alone,
            shared_bytes: usage.shared(),
            volumes: usage.volumes,
            images: usage.images,
            namespace: usage.namespace,
        }
    }
}

impl Listing {
    fn text(&self) -> String {
        let width = output::width();
        let largest = self.namespaces.iter().map(|row| row.total_bytes).max().unwrap_or(0);
        let heading = ["NAMESPACE", "VOLUMES", "IMAGES", "SIZE", "ALONE", "SHARED", ""];
        let mut rows = vec![heading.map(String::from).to_vec()];
        rows.extend(self.namespaces.iter().map(|row| {
            let name = row.namespace.as_deref().map_or_else(|| "(not known)".to_owned(), text::one_line);
            let counts = [row.volumes, row.images].map(|number| number.to_string());
            let sizes = [row.total_bytes, row.alone_bytes, row.shared_bytes].map(bytes);
            let picture = width.map_or_else(String::new, |_| bar(row.alone_bytes, row.shared_bytes, largest));
            [vec![name], counts.to_vec(), sizes.to_vec(), vec![picture]].concat()
        }));
        let mut text = output::table(&rows, &[1, 2, 3, 4, 5], width);
        text.push_str(&format!(
            "{}; pins, prefetches, pulls and mounts by hand alone keep {}, nothing keeps {}\n",
            count(self.namespaces.len() as u64, "namespace"),
            bytes(self.others_bytes),
            bytes(self.idle_bytes)
        ));
        text
    }
}
