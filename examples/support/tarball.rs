//! Writes tar archives as image builders do: ustar headers, and PAX records for values that do not fit in them.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;

/// What a member of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink(Vec<u8>),
    /// Another name of an earlier member.
    Hardlink(Vec<u8>),
}

/// One member: its name relative to the root, without a leading or trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes of content; 0 for anything but a file.
    pub size: u64,
}

/// An archive being written to `W`.
pub struct Tarball<W> {
    out: W,
}

impl<W: Write> Tarball<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Appends a member, whose content must have exactly the size that it says.
    pub fn append(&mut self, member: &Member, content: impl Read) -> io::Result<()> {
        let mut name = member.path.clone();
        if member.kind == Kind::Directory {
            name.push(b'/');
        }
        let (typeflag, target): (u8, &[u8]) = match &member.kind {
            Kind::Directory => (b'5', b""),
            Kind::File => (b'0', b""),
            Kind::Symlink(target) => (b'2', target),
            Kind::Hardlink(target) => (b'1', target),
        };
        let mut records = Vec::new();
        for (key, value) in [("path", name.as_slice()), ("linkpath", target)] {
            if value.len() > 100 {
                push_record(&mut records, key, value);
            }
        }
        if !records.is_empty() {
            let bare = Member { mode: 0o644, size: records.len() as u64, ..member.clone() };
            self.out.write_all(&header(b"PaxHeaders/member", b'x', b"", &bare))?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&header(&name, typeflag, target, member))?;
        let copied = io::copy(&mut content.take(member.size), &mut self.out)?;
        if copied != member.size {
            let message = format!("{} shrank while it was read", String::from_utf8_lossy(&member.path));
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        self.pad(copied)
    }

    /// Writes the end-of-archive blocks.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self, written: u64) -> io::Result<()> {
        let rest = usize::try_from(written % BLOCK as u64).map_err(io::Error::other)?;
        if rest == 0 { Ok(()) } else { self.out.write_all(&[0; BLOCK][rest..]) }
    }
}

/// A PAX record counts its own length: "LENGTH KEY=VALUE\n".
fn push_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn header(name: &[u8], typeflag: u8, target: &[u8], member: &Member) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block[0..100], name);
    octal(&mut block[100..108], u64::from(member.mode & 0o7777));
    octal(&mut block[108..116], u64::from(member.uid));
    octal(&mut block[116..124], u64::from(member.gid));
    octal(&mut block[124..136], member.size);
    octal(&mut block[136..148], member.mtime);
    block[148..156].fill(b' ');
    block[156] = typeflag;
    put(&mut block[157..257], target);
    put(&mut block[257..265], b"ustar\x0000");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// Copies as much as fits; a PAX record has the whole value.
fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Octal digits that fill the field except its last byte, a NUL.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    put(field, format!("{value:0digits$o}").as_bytes());
    field[digits] = 0;
}
