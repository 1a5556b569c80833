//! Archives and blobs as odd writers make them, as a pod sees them: through the whole program, on real mounts. Needs
//! root. What is right is written here; docs/adr/0030-how-layers-are-read.md says why.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::driver::Machine;
use crate::support::images::{Compression, Image, Layer, Layout, layout_from_dirs};

/// A member of an archive: its header with fields put over it, and its content.
fn member_with(flag: u8, name: &[u8], content: &[u8], fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut header = [0; 512];
    let size = format!("{:011o}\0", content.len());
    let written: [(usize, &[u8]); 7] = [
        (0, name),
        (100, b"0000644\0"),
        (108, b"0000007\0"),
        (116, b"0000007\0"),
        (124, size.as_bytes()),
        (136, b"00000000017\0"),
        (257, b"ustar\x0000"),
    ];
    for (at, bytes) in written.into_iter().chain([(156, &[flag][..])]).chain(fields.iter().copied()) {
        header[at..at + bytes.len()].copy_from_slice(bytes);
    }
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut member = [&header[..], content].concat();
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

fn member(flag: u8, name: &str, content: &[u8]) -> Vec<u8> {
    member_with(flag, name.as_bytes(), content, &[])
}

fn file(name: &str, content: &str) -> Vec<u8> {
    member(b'0', name, content.as_bytes())
}

fn directory(name: &str) -> Vec<u8> {
    member_with(b'5', name.as_bytes(), b"", &[(100, b"0000711\0")])
}

fn link(flag: u8, name: &str, target: &str) -> Vec<u8> {
    member_with(flag, name.as_bytes(), b"", &[(157, target.as_bytes())])
}

fn pax(flag: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let length = (rest + 1..).find(|length| length.to_string().len() + rest == *length).unwrap();
        format!("{length} {key}={value}\n")
    };
    member(flag, "PaxHeaders/x", records.iter().map(record).collect::<String>().as_bytes())
}

fn layer(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// A node with an image mounted by the program.
struct Mounted {
    machine: Machine,
    target: PathBuf,
}

impl Mounted {
    fn of(layout: &Layout) -> Self {
        let machine = Machine::new(&[]);
        let target = machine.path().join("seen");
        fs::create_dir(&target).unwrap();
        machine.run(&["mount", &layout.reference("latest"), target.to_str().unwrap()]);
        Self { machine, target }
    }

    fn layers(layers: &[Vec<Vec<u8>>]) -> Self {
        Self::of(&Layout::of(&Image::new(layers.iter().map(|members| layer(members)).collect())))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.target.join(path)
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Mode, owner, group and time.
    fn meta(&self, path: &str) -> (u32, u32, u32, i64) {
        let stat = self.stat(path);
        (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime())
    }

    /// Every path with what it is, in order.
    fn view(&self) -> String {
        let mut words = Vec::new();
        let mut todo = vec![self.target.clone()];
        while let Some(directory) = todo.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&self.target).unwrap().display();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    words.push(format!("{name}/"));
                    todo.push(path);
                } else if kind.is_symlink() {
                    words.push(format!("{name}->{}", fs::read_link(&path).unwrap().display()));
                } else {
                    words.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
                }
            }
        }
        words.sort();
        words.join(" ")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = self.machine.command(&["unmount", self.target.to_str().unwrap()]).output();
        if !std::thread::panicking() {
            assert!(unmounted.unwrap().status.success());
        }
    }
}

/// Pulling the image fails; what the program says.
fn refused(image: &Image) -> String {
    let layout = Layout::of(image);
    let machine = Machine::new(&[]);
    let Output { status, stderr, .. } =
        machine.command(&["pull", &layout.reference("latest")]).output().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

#[test]
fn the_root_is_an_entry_whatever_it_is_called() {
    for name in ["", ".", "./", "/"] {
        let mounted = Mounted::layers(&[vec![directory(name), file("a", "1")]]);
        assert_eq!(mounted.meta("."), (0o711, 7, 7, 15), "{name:?}");
        assert_eq!(mounted.view(), "a=1");
    }
}

#[test]
fn numbers_of_old_and_foreign_writers_are_read() {
    let nuls: [(usize, &[u8]); 3] =
        [(100, b"\0\0\0\x000755"), (108, b"\0\0\0\x001750"), (116, b"  \x001751\0")];
    let minus_two = |at| (at, &b"\xff\xff\xff\xff\xff\xff\xff\xfe"[..]);
    let minus_one = |at| (at, &b"\xff\xff\xff\xff\xff\xff\xff\xff"[..]);
    let mounted = Mounted::layers(&[vec![
        member_with(b'0', b"nuls", b"1", &nuls),
        member_with(b'0', b"nobody", b"1", &[minus_two(108), minus_two(116)]),
        pax(b'x', &[("uid", "-2"), ("gid", "-2")]),
        file("pax", "1"),
        member_with(b'0', b"nochange", b"1", &[minus_one(108), minus_one(116)]),
    ]]);
    assert_eq!(mounted.meta("nuls"), (0o755, 1000, 1001, 15));
    assert_eq!(mounted.meta("nobody"), (0o644, u32::MAX - 1, u32::MAX - 1, 15));
    assert_eq!(mounted.meta("pax"), (0o644, u32::MAX - 1, u32::MAX - 1, 15));
    assert_eq!(mounted.meta("nochange"), (0o644, 0, 0, 15));
}

#[test]
fn names_and_headers_count_as_for_go() {
    let mounted = Mounted::layers(&[vec![
        pax(b'g', &[("uid", "4242"), ("mtime", "1000000000"), ("path", "all")]),
        file("global", "1"),
        member(b'L', "././@LongLink", b"gnu\0"),
        pax(b'x', &[("path", "pax")]),
        file("x", "2"),
        member(b'0', "slash/", b""),
        member(b'0', "slash-with-content/", b"3"),
        member(0, "old-directory/", b""),
    ]]);
    assert_eq!(mounted.view(), "global=1 gnu=2 old-directory/ slash-with-content=3 slash=");
    assert_eq!(mounted.meta("global"), (0o644, 7, 7, 15));
}

#[test]
fn files_that_aufs_kept_are_targets_of_hard_links() {
    let mounted = Mounted::layers(&[vec![
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2", "kept"),
        directory(".wh..wh.orph"),
        file(".wh..wh.aufs", ""),
        link(b'1', "x", ".wh..wh.plnk/1.2"),
        link(b'1', "y", "/.wh..wh.plnk/1.2"),
        file("a", "1"),
    ]]);
    assert_eq!(mounted.view(), "a=1 x=kept y=kept");
    assert_eq!((mounted.stat("x").ino(), mounted.stat("x").nlink()), (mounted.stat("y").ino(), 2));
}

#[test]
fn whiteouts_and_files_below_files_count_wherever_they_stand() {
    let (low, new, gone) = (file("lib", "old"), file("lib/x", "new"), file(".wh.lib", ""));
    for upper in [
        vec![new.clone()],
        vec![new.clone(), gone.clone()],
        vec![gone.clone(), new.clone()],
        vec![directory("lib"), new.clone(), gone.clone()],
    ] {
        assert_eq!(Mounted::layers(&[vec![low.clone()], upper]).view(), "lib/ lib/x=new");
    }
    let low = vec![directory("d"), file("d/keep", "k"), link(b'2', "l", "d")];
    let (new, gone) = (file("l/x", "new"), file(".wh.l", ""));
    for upper in [vec![new.clone()], vec![new.clone(), gone.clone()], vec![gone, new]] {
        assert_eq!(Mounted::layers(&[low.clone(), upper]).view(), "d/ d/keep=k l/ l/x=new");
    }
    let opaque = vec![file("l/.wh..wh..opq", ""), file("l/x", "new")];
    assert_eq!(Mounted::layers(&[low, opaque]).view(), "d/ d/keep=k l/ l/x=new");
}

#[test]
fn what_is_in_the_way_is_named_by_its_whole_path() {
    let tar = layer(&[file("usr/lib/f", "1"), file("usr/lib/f/g", "2")]);
    let said = refused(&Image::new(vec![tar]));
    assert!(said.contains(r#""/usr/lib/f/g" needs "/usr/lib/f" to be a directory"#), "{said}");
}

#[test]
fn blobs_may_be_empty_or_padded() {
    let tar = layer(&[file("a", "1")]);
    let empty = |compression, suffix: &str| Layer {
        tar: Vec::new(),
        compression,
        media_type: Some(format!("application/vnd.oci.image.layer.v1.tar{suffix}")),
    };
    let mut image = Image::new(vec![tar.clone()]);
    image.layers.extend([
        empty(Compression::None, "+gzip"),
        empty(Compression::None, "+zstd"),
        empty(Compression::None, ""),
        empty(Compression::Gzip, "+gzip"),
        Layer::new(layer(&[file("b", "2")])).stored(Compression::GzipPadded(10_000)),
        Layer::new(layer(&[file("c", "3")])).stored(Compression::ZstdPadded(512)),
    ]);
    let mounted = Mounted::of(&Layout::of(&image));
    assert_eq!(mounted.view(), "a=1 b=2 c=3");
    assert_eq!(mounted.machine.run(&["ls"])["images"].as_array().unwrap().len(), 1);
}

#[test]
fn another_compression_is_named_with_what_to_do() {
    let xz = [&b"\xfd7zXZ\0\0\x04"[..], &[9; 600]].concat();
    let mut image = Image::new(vec![]);
    image.layers = vec![Layer::new(xz).stored(Compression::None)];
    let said = refused(&image);
    for part in ["its bytes are xz", "plain, gzip or zstd", "compress it again"] {
        assert!(said.contains(part), "{said}");
    }
}

/// Bytes that the objects of a node take on the disk.
fn disk_use(machine: &Machine) -> u64 {
    let mut sum = 0;
    let mut todo = vec![machine.state().join("store/objects")];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            if stat.is_dir() { todo.push(entry.path()) } else { sum += stat.blocks() * 512 }
        }
    }
    sum
}

/// Compares a file with what it was made of: data at some places, zeros elsewhere.
fn check_content(path: &Path, size: u64, data: &[(u64, &[u8])]) {
    let file = fs::File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    let mut buffer = vec![0; 1 << 20];
    for at in (0..size).step_by(buffer.len()) {
        let length = usize::try_from(size - at).unwrap().min(buffer.len());
        file.read_exact_at(&mut buffer[..length], at).unwrap();
        let mut expected = vec![0; length];
        for (place, bytes) in data {
            for (index, byte) in bytes.iter().enumerate() {
                let within = (place + index as u64).checked_sub(at).and_then(|at| usize::try_from(at).ok());
                if let Some(slot) = within.and_then(|within| expected.get_mut(within)) {
                    *slot = *byte;
                }
            }
        }
        assert!(buffer[..length] == expected[..], "{} differs at {at}", path.display());
    }
}

#[test]
fn a_sparse_file_of_a_gibibyte_takes_what_is_in_it() {
    const SIZE: u64 = 1 << 30;
    let data = [(0, &[1; 10_000][..]), (SIZE / 2 + 77, &[2; 100_000]), (SIZE - 5, &[3; 5])];
    let source = tempfile::tempdir_in("/var/tmp").unwrap();
    let sparse = fs::File::create(source.path().join("disk.img")).unwrap();
    sparse.set_len(SIZE).unwrap();
    data.iter().for_each(|(at, bytes)| sparse.write_all_at(bytes, *at).unwrap());
    // With its holes marked by GNU tar; and written out, as most builders do.
    let marked = layout_from_dirs(&[source.path()]);
    let zeros: Vec<u8> = [&[1; 5000][..], &vec![0; 32 << 20], &[2; 5000]].concat();
    let plain = Layout::of(&Image::new(vec![layer(&[member(b'0', "plain", &zeros)])]));
    let mounted = Mounted::of(&marked);
    assert!(disk_use(&mounted.machine) < 400 << 10, "{}", disk_use(&mounted.machine));
    check_content(&mounted.at("disk.img"), SIZE, &data);
    let mounted = Mounted::of(&plain);
    assert!(disk_use(&mounted.machine) < 400 << 10, "{}", disk_use(&mounted.machine));
    let edges = [(0, &[1; 5000][..]), (5000 + (32 << 20), &[2; 5000])];
    check_content(&mounted.at("plain"), zeros.len() as u64, &edges);
}

#[test]
fn holes_do_not_count_for_the_ratio() {
    // 60 GiB in a blob of a kilobyte.
    const SIZE: u64 = 60 << 30;
    let number = |number: u64| [&[0x80, 0, 0, 0][..], &number.to_be_bytes()].concat();
    let sparse = |fields: &[(usize, u64)]| {
        let fields: Vec<(usize, Vec<u8>)> = fields.iter().map(|(at, value)| (*at, number(*value))).collect();
        let fields: Vec<(usize, &[u8])> = fields.iter().map(|(at, value)| (*at, &value[..])).collect();
        let gnu = [&[(257, &b"ustar  \0"[..])], &fields[..]].concat();
        layer(&[member_with(b'S', b"disk.img", b"ends", &gnu)])
    };
    let tar = sparse(&[(386, SIZE - 4), (398, 4), (483, SIZE)]);
    let mounted = Mounted::of(&Layout::of(&Image::new(vec![tar.clone()])));
    assert_eq!(mounted.stat("disk.img").len(), SIZE);
    let mut end = [9; 8];
    fs::File::open(mounted.at("disk.img")).unwrap().read_exact_at(&mut end, SIZE - 8).unwrap();
    assert_eq!(&end, b"\0\0\0\0ends");
    assert!(disk_use(&mounted.machine) < 400 << 10);
    // They do for what a layer may be.
    let layout = Layout::of(&Image::new(vec![tar]));
    let machine = Machine::new(&[]);
    let pull = ["pull", &layout.reference("latest"), "--max-layer-bytes", "1000000"];
    let said = machine.command(&pull).output().unwrap();
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("--max-layer-bytes"), "{said:?}");
}
