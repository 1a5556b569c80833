//! Headers of tar archives: ustar, with PAX records for what it cannot hold (POSIX.1-2008, pax, "ustar Interchange
//! Format" and "pax Extended Header"). Attributes are records of star's, as all readers of layers know them. Pure.

use std::collections::BTreeMap;

use super::item::{Item, ItemKind};
use crate::image::entry::Mtime;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;
/// Bytes of a name or link target in a header.
const NAME: usize = 100;

/// The headers of an item: an extended one if it is needed, and its own. Whole blocks.
pub(super) fn header(item: &Item) -> Vec<u8> {
    let (name, link) = (name(item), link(item));
    let records = records(item, &name, link);
    let mut out = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        let content: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        // Readers without PAX show this name.
        let shown = [b"PaxHeaders.0/", name.strip_suffix(b"/").unwrap_or(&name)].concat();
        let plain =
            Fields { mode: 0o644, uid: 0, gid: 0, size: content.len() as u64, seconds: 0, sort: b'x' };
        out.extend_from_slice(&block(&shown, b"", &plain));
        out.extend_from_slice(&content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    let Mtime { secs, .. } = item.meta.mtime;
    let fields = Fields {
        mode: item.meta.mode,
        uid: item.meta.uid.into(),
        gid: item.meta.gid.into(),
        size: item.size(),
        seconds: u64::try_from(secs).unwrap_or(0),
        sort: match item.kind {
            ItemKind::File(_) => b'0',
            ItemKind::Hardlink(_) => b'1',
            ItemKind::Symlink(_) => b'2',
            ItemKind::Directory => b'5',
        },
    };
    out.extend_from_slice(&block(&name, link, &fields));
    out
}

/// The name in the archive: directories end in a slash.
pub(super) fn name(item: &Item) -> Vec<u8> {
    let mut name = item.path.to_vec();
    if item.kind == ItemKind::Directory {
        name.push(b'/');
    }
    name
}

/// The target in the archive.
pub(super) fn link(item: &Item) -> &[u8] {
    match &item.kind {
        ItemKind::Symlink(target) | ItemKind::Hardlink(target) => target,
        ItemKind::Directory | ItemKind::File(_) => b"",
    }
}

/// What the header itself cannot hold, by key.
fn records(item: &Item, name: &[u8], link: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    let mut add = |key: &str, value: Vec<u8>| drop(records.insert(key.as_bytes().to_vec(), value));
    // A header's names are ASCII; those of records are UTF-8, or whatever the system has.
    let fits = |text: &[u8]| text.len() <= NAME && text.is_ascii();
    if !fits(name) {
        add("path", name.to_vec());
    }
    if !fits(link) {
        add("linkpath", link.to_vec());
    }
    for (key, number, digits) in [
        ("uid", u64::from(item.meta.uid), 7),
        ("gid", u64::from(item.meta.gid), 7),
        ("size", item.size(), 11),
    ] {
        if number >= 1 << (3 * digits) {
            add(key, number.to_string().into_bytes());
        }
    }
    let Mtime { secs, nanos } = item.meta.mtime;
    if nanos != 0 || !(0..1 << 33).contains(&secs) {
        add("mtime", decimal(secs, nanos).into_bytes());
    }
    for (attribute, value) in &item.meta.xattrs {
        records.insert([b"SCHILY.xattr.", &**attribute].concat(), value.to_vec());
    }
    records
}

/// Seconds with their fraction. Before 1970 the fraction counts backwards, as in any decimal number.
fn decimal(secs: i64, nanos: u32) -> String {
    if nanos == 0 {
        return secs.to_string();
    }
    let total = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, part) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    format!("{sign}{whole}.{part:09}").trim_end_matches('0').to_owned()
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

struct Fields {
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    seconds: u64,
    sort: u8,
}

/// A header block. Names that do not fit are cut; a record has them whole.
fn block(name: &[u8], link: &[u8], fields: &Fields) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, &name[..name.len().min(NAME)]);
    put(&mut block, 100, octal(fields.mode.into(), 7).as_bytes());
    put(&mut block, 108, octal(fields.uid, 7).as_bytes());
    put(&mut block, 116, octal(fields.gid, 7).as_bytes());
    put(&mut block, 124, octal(fields.size, 11).as_bytes());
    put(&mut block, 136, octal(fields.seconds, 11).as_bytes());
    put(&mut block, 148, b"        ");
    block[156] = fields.sort;
    put(&mut block, 157, &link[..link.len().min(NAME)]);
    put(&mut block, 257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// So many digits. A number that has more is in a record, and 0 here.
fn octal(number: u64, digits: usize) -> String {
    let number = if number < 1 << (3 * digits) { number } else { 0 };
    format!("{number:0digits$o}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::entry::Meta;
    use crate::push::item::{FileSource, Stamp};

    #[test]
    fn records_count_themselves() {
        assert_eq!(record(b"path", b"x"), b"9 path=x\n");
        for length in 0..1200 {
            let record = record(b"k", &vec![b'v'; length]);
            let (stated, _) = record.split_at(record.iter().position(|b| *b == b' ').unwrap());
            assert_eq!(std::str::from_utf8(stated).unwrap(), record.len().to_string());
        }
    }

    #[test]
    fn times_are_decimal_numbers() {
        assert_eq!(decimal(5, 0), "5");
        assert_eq!(decimal(5, 120_000_000), "5.12");
        assert_eq!(decimal(-1, 0), "-1");
        assert_eq!(decimal(-1, 750_000_000), "-0.25");
        assert_eq!(decimal(-2, 750_000_000), "-1.25");
    }

    #[test]
    fn what_is_ordinary_takes_one_block() {
        let file = |size| ItemKind::File(FileSource { path: "x".into(), stamp: Stamp::sized(size) });
        let item = |path: &str, size| Item {
            path: path.as_bytes().into(),
            meta: Meta { mode: 0o644, ..Meta::default() },
            kind: file(size),
        };
        assert_eq!(header(&item("a/b", 7)).len(), BLOCK);
        assert_eq!(header(&item(&"n".repeat(100), 7)).len(), BLOCK);
        assert_eq!(header(&item(&"n".repeat(101), 7)).len(), 3 * BLOCK);
        assert_eq!(header(&item("ü", 7)).len(), 3 * BLOCK);
        assert_eq!(header(&item("large", (8 << 30) - 1)).len(), BLOCK);
        assert_eq!(header(&item("larger", 8 << 30)).len(), 3 * BLOCK);
    }
}
