//! Layers from arbitrary bytes: few names, so that entries meet, and every kind of entry.

use composefs_csi::image::entry::{Entry, EntryKind, Meta, Mtime};
use composefs_csi::image::verity::VerityDigest;

const PARTS: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"usr",
    b"run",
    b"bin",
    b"00",
    b"ff",
    b".wh.x",
    b"a b",
    b"\xff\xfe",
    b"...",
    b"e",
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    b"-",
];
const TARGETS: [&[u8]; 8] = [b"a", b"../a", b"/", b"/a/b", b"b/../c", b".", b"d/e", b"../../../.."];
const ATTRIBUTES: [&[u8]; 8] = [
    b"security.capability",
    b"system.posix_acl_access",
    b"trusted.overlay.opaque",
    b"trusted.x",
    b"user.a",
    b"user.b",
    b"user.overlay.redirect",
    b"user.overlayfs",
];

/// Bytes taken one after another; zeros when there are no more.
pub struct Script<'a>(pub &'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// A clean path of up to five parts; the empty one is the root.
    fn path(&mut self) -> Box<[u8]> {
        let shape = self.byte();
        let parts = usize::from(shape % 6);
        let parts: Vec<&[u8]> = (0..parts).map(|_| PARTS[usize::from(self.byte() % 16)]).collect();
        parts.join(&b'/').into()
    }

    fn kind(&mut self) -> EntryKind {
        match self.byte() % 12 {
            0 | 1 => EntryKind::Directory,
            2 => {
                let length = usize::from(self.byte() % 65);
                EntryKind::Inline((0..length).map(|_| self.byte()).collect())
            }
            3 => EntryKind::Object(VerityDigest([self.byte(); 32]), 65 + u64::from(self.number())),
            4 | 5 => EntryKind::Symlink(TARGETS[usize::from(self.byte() % 8)].into()),
            6 | 7 => EntryKind::Hardlink(self.path()),
            8 => EntryKind::CharDevice(self.number() % 5000, self.number() % (2 << 20)),
            9 => match self.byte() {
                0 => EntryKind::CharDevice(0, 0),
                1 => EntryKind::BlockDevice(self.number() % 5000, self.number() % (2 << 20)),
                _ => EntryKind::Fifo,
            },
            10 => EntryKind::Whiteout,
            _ => EntryKind::Opaque,
        }
    }

    fn meta(&mut self) -> Meta {
        let shape = self.byte();
        if shape & 1 == 0 {
            return Meta { mode: 0o755, ..Meta::default() };
        }
        let mut xattrs: Vec<_> = (0..shape >> 1 & 3)
            .map(|_| {
                let length = usize::from(self.byte() % 100);
                (ATTRIBUTES[usize::from(self.byte() % 8)].into(), vec![self.byte(); length].into())
            })
            .collect();
        xattrs.sort();
        xattrs.dedup_by(|(a, _): &mut (Box<[u8]>, Box<[u8]>), (b, _)| a == b);
        let mtime = Mtime {
            secs: i64::from(self.number() as i32) << (shape >> 3 & 7),
            nanos: self.number() % 1_000_000_000,
        };
        Meta { mode: self.number() & 0o7777, uid: self.number(), gid: self.number(), mtime, xattrs }
    }

    /// Up to eight layers of entries.
    pub fn layers(mut self) -> Vec<Vec<Entry>> {
        let mut layers = vec![Vec::new()];
        while !self.0.is_empty() {
            if self.byte() > 0xf0 && layers.len() < 8 {
                layers.push(Vec::new());
            }
            let (path, kind) = (self.path(), self.kind());
            let bare = matches!(kind, EntryKind::Whiteout | EntryKind::Opaque | EntryKind::Hardlink(_));
            let meta = if bare { Meta::default() } else { self.meta() };
            if let Some(layer) = layers.last_mut() {
                layer.push(Entry { path, meta, kind });
            }
        }
        layers
    }
}
