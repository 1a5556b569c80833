//! Layers fold into the tree that Debian's `umoci unpack` makes of the same image: every path with its
//! type, content, mode, owner, times, extended attributes and hard links. Where umoci unpacks a layer into the lower
//! ones instead of by itself, podman's mount is right, on overlayfs. Needs umoci, podman and root.

use std::path::Path;
use std::process::Command;

use composefs_csi::image::composefs::dump;
use composefs_csi::image::entry::{EntryKind, LayerEntry, Mtime};
use composefs_csi::image::tree::{Builder, CheckedTree, Rules, TreeError};

use crate::support::layout;

fn entry(path: &str, kind: EntryKind) -> LayerEntry {
    let mut entry = LayerEntry { path: path.as_bytes().into(), meta: Default::default(), kind };
    // A mark of the path in everything, so that a mix-up shows.
    let mark = path.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    entry.meta.mode = 0o600 | mark & 0o77;
    (entry.meta.uid, entry.meta.gid) = (mark % 70_000, mark % 65_537);
    entry.meta.mtime = Mtime { secs: 1_600_000_000 + i64::from(mark % 100_000), nanos: mark % 1_000_000_000 };
    entry
}

fn dir(path: &str) -> LayerEntry {
    let mut dir = entry(path, EntryKind::Directory);
    dir.meta.mode |= 0o1700;
    dir
}

fn file(path: &str, content: &str) -> LayerEntry {
    entry(path, EntryKind::Inline(content.as_bytes().into()))
}

fn symlink(path: &str, target: &str) -> LayerEntry {
    let mut link = entry(path, EntryKind::Symlink(target.as_bytes().into()));
    // Linux gives every symbolic link this mode, whatever the tar says.
    link.meta.mode = 0o777;
    link
}

fn link(path: &str, target: &str) -> LayerEntry {
    entry(path, EntryKind::Hardlink(target.as_bytes().into()))
}

fn whiteout(path: &str) -> LayerEntry {
    entry(path, EntryKind::Whiteout)
}

fn opaque(path: &str) -> LayerEntry {
    entry(path, EntryKind::Opaque)
}

fn fold(layers: &[Vec<LayerEntry>]) -> Result<CheckedTree, TreeError> {
    let mut builder = Builder::new(Rules::Verbatim);
    for entries in layers {
        let mut layer = builder.layer();
        entries.iter().try_for_each(|entry| layer.apply(entry.clone()))?;
        layer.end()?;
    }
    builder.finish()
}

fn lines(tree: &CheckedTree) -> Vec<String> {
    let mut text = Vec::new();
    dump(tree, &mut text).unwrap();
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

/// What umoci makes of an image, read back from the directory.
fn unpacked(scratch: &Path, layers: &[Vec<LayerEntry>]) -> Result<Vec<String>, String> {
    let (image, bundle) = (scratch.join("image"), scratch.join("bundle"));
    layout::write(&image, layers);
    let mut umoci = Command::new(crate::support::tools::installed("umoci"));
    umoci
        .args(["--log", "error", "unpack", "--image"])
        .arg(image.join(":latest").to_str().unwrap().replace("/:", ":"));
    let output = umoci.arg(&bundle).output().expect("umoci starts");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(lines(&fold(&[crate::support::unpacked::entries(&bundle.join("rootfs"))]).unwrap()))
}

/// Lines that differ. A directory that umoci touches without an entry for it (to make it, to put
/// something in or to take something out) has the time of unpacking in theirs.
fn differences(ours: &[String], theirs: &[String]) -> Vec<String> {
    let mut differences = Vec::new();
    for at in 0..ours.len().max(theirs.len()) {
        let (our, their) = (ours.get(at).map_or("", |line| line), theirs.get(at).map_or("", |line| line));
        if our != their && !(touched(their) && timeless(our) == timeless(their)) {
            differences.push(format!("ours   {our}\ntheirs {their}"));
        }
    }
    differences
}

/// Whether a line is a directory's with a time later than that of any entry here.
fn touched(line: &str) -> bool {
    let fields: Vec<&str> = line.split(' ').collect();
    let seconds = fields.get(7).and_then(|time| time.split('.').next()?.parse::<u64>().ok());
    fields.get(2).is_some_and(|mode| mode.starts_with('4'))
        && seconds.is_some_and(|time| time > 1_700_000_000)
}

fn timeless(line: &str) -> String {
    let fields = line.split(' ').enumerate().filter(|(at, _)| *at != 7);
    fields.map(|(_, field)| field).collect::<Vec<_>>().join(" ")
}

fn compare(layers: &[Vec<LayerEntry>]) -> Result<(), String> {
    let scratch = tempfile::tempdir().unwrap();
    let theirs = unpacked(scratch.path(), layers)?;
    same(layers, &theirs)
}

fn same(layers: &[Vec<LayerEntry>], theirs: &[String]) -> Result<(), String> {
    let ours = lines(&fold(layers).map_err(|error| error.to_string())?);
    let differences = differences(&ours, theirs);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

fn check(layers: &[Vec<LayerEntry>]) {
    compare(layers).unwrap_or_else(|difference| panic!("{difference}"));
}

#[test]
fn one_layer_of_everything() {
    let mut attributed = file("d/attributed", "x");
    attributed.meta.xattrs = vec![(b"user.a".as_slice().into(), b"1\0\xff".as_slice().into())];
    check(&[vec![
        dir(""),
        dir("d"),
        file("d/inline", "content"),
        entry("d/object", layout::object(100_000, 1)),
        file("d/empty", ""),
        symlink("d/symlink", "../nowhere"),
        entry("d/char", EntryKind::CharDevice(1, 3)),
        entry("d/block", EntryKind::BlockDevice(259, 70_000)),
        entry("d/fifo", EntryKind::Fifo),
        link("d/hardlink", "d/object"),
        link("linked-symlink", "d/symlink"),
        link("linked-fifo", "d/fifo"),
        attributed,
        file("implied/parents/f", "x"),
    ]]);
}

#[test]
fn layers_over_layers() {
    let lower = vec![dir(""), dir("a"), dir("a/b"), file("a/b/f", "1"), file("a/f", "2"), file("z", "3")];
    let upper = |entry: LayerEntry| check(&[lower.clone(), vec![entry]]);
    let mut described_anew = dir("a");
    described_anew.meta.uid = 12;
    upper(described_anew);
    upper(file("a/f", "new"));
    upper(file("a", "now a file"));
    upper(symlink("a", "z"));
    upper(dir("z"));
    upper(link("a/f", "z"));
    upper(link("new", "a/b/f"));
}

#[test]
fn whiteouts() {
    let lower = vec![dir(""), dir("a"), dir("a/b"), file("a/b/f", "1"), file("a/f", "2"), file("z", "3")];
    for entries in [
        vec![whiteout("z")],
        vec![whiteout("a")],
        vec![whiteout("a/b"), file("a/g", "new")],
        vec![whiteout("a"), dir("a"), file("a/g", "new")],
        vec![dir("a"), file("a/g", "new"), whiteout("a")],
        vec![whiteout("z"), dir("z"), file("z/f", "new")],
        vec![link("kept", "z"), whiteout("z")],
        vec![whiteout("never/there")],
    ] {
        check(&[lower.clone(), entries]);
    }
}

#[test]
fn opaque_directories() {
    let lower = vec![dir(""), dir("a"), dir("a/b"), file("a/b/f", "1"), file("a/f", "2"), file("z", "3")];
    for entries in [
        vec![opaque("a")],
        vec![opaque("a"), dir("a"), file("a/g", "new")],
        vec![dir("a"), file("a/g", "new"), opaque("a")],
        vec![dir("a"), dir("a/b"), file("a/b/g", "new"), opaque("a")],
        vec![opaque("a/b"), file("a/b/g", "new")],
    ] {
        check(&[lower.clone(), entries]);
    }
}

#[test]
fn paths_through_symbolic_links_of_their_own_layer() {
    let links = vec![
        dir(""),
        dir("usr"),
        dir("usr/lib"),
        file("usr/lib/old", "1"),
        symlink("lib", "usr/lib"),
        symlink("absolute", "/usr/lib"),
        symlink("outside", "../../../../usr"),
        symlink("chain", "outside/lib"),
    ];
    for entry in [
        file("lib/new", "2"),
        file("absolute/new", "2"),
        file("outside/new", "2"),
        file("chain/deeper/new", "2"),
        link("lib/linked", "absolute/old"),
    ] {
        check(&[[links.clone(), vec![entry]].concat()]);
    }
    check(&[links, vec![dir("lib"), file("lib/new", "2")]]);
}

/// What podman shows of an image, on overlayfs, as kubelet's runtimes do: paths with their types and contents. What
/// metadata a directory has that no entry describes, each runtime decides by itself.
mod stacked {
    use super::*;
    use crate::support::registry::run;
    use crate::support::tools::installed;

    fn podman(storage: &Path, arguments: &[&str]) -> String {
        let mut podman = Command::new(installed("podman"));
        podman.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        let output = run(podman.args(["--storage-driver", "overlay"]).args(arguments));
        String::from_utf8(output).unwrap().trim().to_owned()
    }

    /// Path, type and content of each line of a dump.
    fn shapes(lines: &[String]) -> Vec<String> {
        let shape = |line: &String| {
            let fields: Vec<&str> = line.split(' ').collect();
            let kind = fields[2].get(..fields[2].len().saturating_sub(4)).unwrap_or(fields[2]);
            format!("{} {kind} {} {}", fields[0], fields[8], fields[9])
        };
        lines.iter().map(shape).collect()
    }

    #[test]
    fn what_lies_over_anything_but_directories_is_what_podman_mounts() {
        // Podman makes a reference of the path, so it must look like one.
        let name = format!("stacked-{}", std::process::id());
        let scratch = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in("/var/tmp").unwrap();
        let lower = vec![
            dir(""),
            dir("d"),
            file("d/keep", "k"),
            file("f", "old"),
            symlink("l", "d"),
            symlink("absolute", "/d"),
            symlink("dangling", "nowhere"),
        ];
        let uppers = [
            vec![file("f/below", "new")],
            vec![file("f/deep/below", "new"), file("f/other", "new")],
            vec![file("l/below", "new")],
            vec![file("absolute/below", "new")],
            vec![file("dangling/below", "new")],
            vec![dir("l"), file("l/below", "new")],
            vec![opaque("l"), file("l/below", "new")],
            vec![opaque("d"), file("d/below", "new")],
            // Podman refuses a layer whose own link leads out of what it holds itself.
            vec![dir("d"), symlink("own", "d"), file("own/below", "new")],
            vec![symlink("l", "f"), whiteout("d")],
            vec![whiteout("f"), whiteout("d/keep"), file("d/below", "new")],
        ];
        for (number, upper) in uppers.into_iter().enumerate() {
            let layers = [lower.clone(), upper];
            let layout = scratch.path().join(format!("layout-{number}"));
            layout::write(&layout, &layers);
            let image =
                podman(scratch.path(), &["pull", "--quiet", &format!("oci:{}:latest", layout.display())]);
            let mounted = podman(scratch.path(), &["image", "mount", &image]);
            let theirs = lines(&fold(&[crate::support::unpacked::entries(Path::new(&mounted))]).unwrap());
            podman(scratch.path(), &["image", "unmount", &image]);
            let ours = lines(&fold(&layers).unwrap());
            assert_eq!(shapes(&ours)[1..], shapes(&theirs)[1..], "{:?}", layers[1]);
        }
        podman(scratch.path(), &["rmi", "--all", "--force"]);
    }
}

#[test]
fn three_layers() {
    check(&[
        vec![dir(""), dir("a"), file("a/1", "1"), file("a/2", "1"), link("one", "a/1")],
        vec![whiteout("a/1"), file("a/3", "2"), symlink("s", "a")],
        vec![file("a/4", "3"), opaque("none"), dir("a"), link("two", "one"), whiteout("one")],
    ]);
}

mod random {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn path() -> impl Strategy<Value = String> {
        vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.join("/"))
    }

    fn any_entry() -> impl Strategy<Value = LayerEntry> {
        let content = prop::sample::select(vec!["", "x", "yy", "more content"]);
        prop_oneof![
            4 => path().prop_map(|path| dir(&path)),
            4 => (path(), content).prop_map(|(path, content)| file(&path, content)),
            1 => (path(), 0..4u8).prop_map(|(path, seed)| entry(&path, layout::object(100, seed))),
            2 => (path(), path()).prop_map(|(path, target)| symlink(&path, &target)),
            1 => (path(), path()).prop_map(|(path, target)| symlink(&path, &format!("/{target}"))),
            1 => (path(), path()).prop_map(|(path, target)| symlink(&path, &format!("../{target}"))),
            2 => (path(), path()).prop_map(|(path, target)| link(&path, &target)),
            3 => path().prop_map(|path| whiteout(&path)),
            2 => path().prop_map(|path| opaque(&path)),
        ]
    }

    /// Layers without the entries that our fold refuses, and without those that umoci applies to the lower layers in
    /// turn (`src/image/tree/tests/model.rs` has them). Markers come first: where one comes after what it spares, umoci
    /// keeps a lower directory's metadata; ours does not depend on the order.
    fn fitting(layers: Vec<Vec<LayerEntry>>) -> Vec<Vec<LayerEntry>> {
        let mut kept = vec![vec![dir("")]];
        for entries in layers {
            let (markers, others): (Vec<LayerEntry>, Vec<LayerEntry>) =
                entries.into_iter().partition(is_marker);
            let lower = without_directories(&lines(&fold(&kept).unwrap()));
            kept.push(vec![]);
            for entry in markers.into_iter().chain(others) {
                let is_fit = is_fit(&entry, kept.last().unwrap(), &lower);
                kept.last_mut().unwrap().push(entry);
                if !is_fit || fold(&kept).is_err() {
                    kept.last_mut().unwrap().pop();
                }
            }
        }
        kept
    }

    fn is_marker(entry: &LayerEntry) -> bool {
        matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque)
    }

    /// The paths of a dump that are no directories.
    fn without_directories(lines: &[String]) -> Vec<String> {
        let no_directory = |line: &&String| !line.split(' ').nth(2).unwrap().starts_with('4');
        lines
            .iter()
            .filter(no_directory)
            .map(|line| line.split(' ').next().unwrap()[1..].to_owned())
            .collect()
    }

    fn text(path: &[u8]) -> &str {
        std::str::from_utf8(path).unwrap()
    }

    /// The directories that an entry needs, those of a link's target included.
    fn needs(entry: &LayerEntry) -> Vec<&str> {
        let mut paths = vec![text(&entry.path)];
        if let EntryKind::Hardlink(target) = &entry.kind {
            paths.push(text(target));
        }
        let own = (entry.kind == EntryKind::Opaque).then_some(paths[0]);
        let parents = paths.iter().flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at]));
        parents.chain(own).collect()
    }

    /// Whether umoci makes the same of an entry, behind `before` of its layer and over what the lower ones have.
    fn is_fit(entry: &LayerEntry, before: &[LayerEntry], lower: &[String]) -> bool {
        let is_link = |other: &&LayerEntry| matches!(other.kind, EntryKind::Symlink(_));
        let links: Vec<&str> = before.iter().filter(is_link).map(|other| text(&other.path)).collect();
        // A path through something of a lower layer, or through a link.
        if needs(entry).iter().any(|dir| links.contains(dir) || lower.iter().any(|path| path == dir)) {
            return false;
        }
        before.iter().all(|other| match (&entry.kind, &other.kind) {
            // A link where a marker needs a directory.
            (EntryKind::Symlink(_), _) => !needs(other).contains(&text(&entry.path)),
            // What the layer replaces of its own is gone; what it hid of lower ones meanwhile stays gone in theirs.
            (EntryKind::Directory, kind) => {
                is_marker(other) || *kind == EntryKind::Directory || other.path != entry.path
            }
            // A link to what its layer hides.
            (EntryKind::Hardlink(target), EntryKind::Whiteout) => !is_in(text(target), text(&other.path)),
            (EntryKind::Hardlink(target), EntryKind::Opaque) => !is_in(text(target), text(&other.path)),
            _ => true,
        })
    }

    fn is_in(path: &str, top: &str) -> bool {
        path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn shown(layers: &[Vec<LayerEntry>]) -> String {
        let word = |entry: &LayerEntry| format!("{} {:?}", String::from_utf8_lossy(&entry.path), entry.kind);
        let layer = |entries: &Vec<LayerEntry>| entries.iter().map(word).collect::<Vec<_>>().join("\n");
        layers.iter().map(layer).collect::<Vec<_>>().join("\n--\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn layers(layers in vec(vec(any_entry(), 0..8), 1..4)) {
            let layers = fitting(layers);
            let scratch = tempfile::tempdir().unwrap();
            // What umoci cannot unpack, such as a link to itself, says nothing about the others.
            let theirs = unpacked(scratch.path(), &layers).map_err(TestCaseError::reject)?;
            same(&layers, &theirs).map_err(|error| TestCaseError::fail(format!("{error}\n{}", shown(&layers))))?;
        }
    }
}
