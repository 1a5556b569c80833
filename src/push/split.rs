//! Which layer each name lies in: decided by the tree alone, and so that a second version shares most layers. Pure.
//!
//! Large files have a layer each. The others are divided by their directory, into more parts the more there is of them; a
//! change of one directory changes one part. All directories and symbolic links are in the first layer, and in every other
//! one again those above its files: a layer is unpacked by itself, and what it says of a directory counts.

use std::collections::{BTreeSet, HashMap};

use super::item::{Item, ItemKind};
use crate::oci::digest::Digest;

/// Bytes of a file that has a layer of its own, if it is among the largest.
const LARGE: u64 = 32 << 20;
/// Layers of single files. With the parts, fewer than the 127 that overlayfs takes of runtimes.
const LARGE_MAX: usize = 64;
/// Bytes of all other files for each part.
const PART: u64 = 64 << 20;
const PARTS_MAX: u64 = 32;

/// Divides a tree into layers: the numbers of their items, lowest layer first.
pub(super) fn split(items: &[Item]) -> Vec<Vec<usize>> {
    let large = large(items);
    let is_large = |number: usize| large.contains(&number);
    let rest: u64 =
        items.iter().enumerate().filter(|(n, _)| !is_large(*n)).map(|(_, item)| item.size()).sum();
    // A power of two, so that a tree that grows is divided anew only when it has doubled.
    let parts = rest.div_ceil(PART).clamp(1, PARTS_MAX).next_power_of_two();
    let numbers: HashMap<&[u8], usize> =
        items.iter().enumerate().map(|(number, item)| (&*item.path, number)).collect();
    let mut part_of: HashMap<usize, usize> = HashMap::new();
    let mut layers = vec![Vec::new(); usize::try_from(parts).unwrap_or(1)];
    let mut own = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let layer = match &item.kind {
            ItemKind::Directory | ItemKind::Symlink(_) => 0,
            // Beside the file that it is a name of.
            ItemKind::Hardlink(first) => {
                numbers.get(&**first).and_then(|first| part_of.get(first)).copied().unwrap_or(0)
            }
            ItemKind::File(_) if is_large(number) => {
                own.push(number);
                layers.len() + own.len() - 1
            }
            ItemKind::File(_) => part(directory(&item.path), parts),
        };
        part_of.insert(number, layer);
    }
    layers.resize(layers.len() + own.len(), Vec::new());
    for number in 0..items.len() {
        if let Some(layer) = part_of.get(&number).and_then(|layer| layers.get_mut(*layer)) {
            layer.push(number);
        }
    }
    for layer in layers.iter_mut().skip(1) {
        let paths = layer.iter().filter_map(|number| items.get(*number)).flat_map(|item| above(&item.path));
        let above: BTreeSet<usize> = paths.filter_map(|path| numbers.get(path).copied()).collect();
        layer.extend(above);
        // In the order of the tree, in which parents come first.
        layer.sort_unstable();
    }
    layers.retain(|layer| !layer.is_empty());
    layers
}

/// The files that have a layer of their own: the largest ones, the first ones among equals.
fn large(items: &[Item]) -> BTreeSet<usize> {
    let mut large: Vec<(u64, usize)> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| item.size() >= LARGE)
        .map(|(number, item)| (u64::MAX - item.size(), number))
        .collect();
    large.sort_unstable();
    large.into_iter().take(LARGE_MAX).map(|(_, number)| number).collect()
}

fn part(directory: &[u8], parts: u64) -> usize {
    let digest = Digest::of(directory);
    let first = digest.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes);
    usize::try_from(first % parts).unwrap_or(0)
}

fn directory(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

/// The directories on the way to a path.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::entry::Meta;
    use crate::push::item::{FileSource, Stamp};

    fn item(path: &str, kind: ItemKind) -> Item {
        Item { path: path.as_bytes().into(), meta: Meta::default(), kind }
    }

    fn file(path: &str, size: u64) -> Item {
        item(path, ItemKind::File(FileSource { path: path.into(), stamp: Stamp::sized(size) }))
    }

    fn names(items: &[Item]) -> Vec<Vec<String>> {
        let name = |number: &usize| items[*number].shown();
        split(items).iter().map(|layer| layer.iter().map(name).collect()).collect()
    }

    #[test]
    fn a_small_tree_is_one_layer_and_large_files_have_their_own() {
        let mut items = vec![
            item("d", ItemKind::Directory),
            file("d/a", LARGE),
            file("d/b", 10),
            item("d/c", ItemKind::Hardlink(b"d/a".as_slice().into())),
            item("l", ItemKind::Symlink(b"d".as_slice().into())),
        ];
        assert_eq!(names(&items), [vec!["d", "d/b", "l"], vec!["d", "d/a", "d/c"]]);
        items[1] = file("d/a", LARGE - 1);
        assert_eq!(names(&items), [vec!["d", "d/a", "d/b", "d/c", "l"]]);
    }

    #[test]
    fn there_are_fewer_layers_than_runtimes_take() {
        let items: Vec<_> = (0..3000).map(|n| file(&format!("f{n:04}"), LARGE + n)).collect();
        assert!(split(&items).len() < 120);
        let mut items: Vec<Item> =
            (0..1000).map(|n| item(&format!("d{n:04}"), ItemKind::Directory)).collect();
        items.extend((0..1000).map(|n| file(&format!("d{n:04}/f"), LARGE - 1)));
        items.sort_by(|a, b| a.path.cmp(&b.path));
        let layers = split(&items);
        assert!((16..120).contains(&layers.len()), "{}", layers.len());
    }

    proptest! {
        #[test]
        fn every_name_lies_in_one_layer_and_parents_before_it(
            files in prop::collection::btree_map("[a-c]/[a-c]/[a-z]{1,3}", 0_u64..(40 << 20), 1..60),
        ) {
            let mut paths: BTreeSet<String> = BTreeSet::new();
            for path in files.keys() {
                paths.extend(above(path.as_bytes()).map(|path| String::from_utf8(path.to_vec()).unwrap()));
            }
            let mut items: Vec<Item> = paths.iter().map(|path| item(path, ItemKind::Directory)).collect();
            items.extend(files.iter().map(|(path, size)| file(path, *size)));
            items.sort_by(|a, b| a.path.split(|b| *b == b'/').cmp(b.path.split(|b| *b == b'/')));
            let layers = split(&items);
            for (number, item) in items.iter().enumerate() {
                let count = layers.iter().filter(|layer| layer.contains(&number)).count();
                match item.kind {
                    ItemKind::Directory => prop_assert!(count >= 1),
                    _ => prop_assert_eq!(count, 1),
                }
            }
            for layer in &layers {
                let mut seen = BTreeSet::new();
                for number in layer {
                    prop_assert!(above(&items[*number].path).all(|path| seen.contains(path)));
                    seen.insert(&*items[*number].path);
                }
            }
        }
    }
}
