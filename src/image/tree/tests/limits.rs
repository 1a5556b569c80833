//! What the format or Linux cannot hold is refused, and named.

use super::fixtures::*;
use super::*;
use crate::kind::Kind;

/// Symbolic links in a chain, each of which goes back and forth: the longest way that one path can take.
fn long_way() -> Vec<LayerEntry> {
    let target = |last: &str| format!("{}{last}", "a/../".repeat(800));
    let links = (0..40).map(|n| {
        let last = if n < 39 { format!("s{}", n + 1) } else { "a".to_owned() };
        symlink(&format!("s{n}"), &target(&last))
    });
    std::iter::once(dir("a")).chain(links).collect()
}

#[test]
fn neighbours_walk_the_long_way_once() {
    let limits = ImageLimits { path_steps: 200_000, ..ImageLimits::default() };
    let names = (0..20_000).map(|n| file(&format!("s0/f{}", n % 50), "x"));
    let mut builder = Builder::with_limits(Rules::Verbatim, limits);
    let mut layer = builder.layer();
    long_way().into_iter().chain(names).try_for_each(|entry| layer.apply(entry)).unwrap();
    layer.end().unwrap();
    let tree = builder.finish().unwrap();
    assert!(dump(&tree).contains("/a/f49 "));
}

#[test]
fn a_path_that_takes_the_long_way_again_and_again_is_refused() {
    let limits = ImageLimits { path_steps: 200_000, ..ImageLimits::default() };
    // More directories in turn than are remembered.
    let names = (0..20_000).map(|n| file(&format!("s{}/f{n}", n % 5), "x"));
    let mut builder = Builder::with_limits(Rules::Verbatim, limits);
    let mut layer = builder.layer();
    let refused = long_way().into_iter().chain(names).try_for_each(|entry| layer.apply(entry)).unwrap_err();
    assert!(matches!(&refused, TreeError::Limit(exceeded) if exceeded.cap == Cap::PathSteps), "{refused}");
    assert_eq!(refused.kind(), Kind::Exhausted);
}

#[test]
fn links_that_wait_for_a_name_that_never_comes_cost_one_round() {
    let limits = ImageLimits { path_steps: 200_000, ..ImageLimits::default() };
    let links = (0..2000).map(|n| link(&format!("l{n}"), "s0/none"));
    let mut builder = Builder::with_limits(Rules::Verbatim, limits);
    let mut layer = builder.layer();
    long_way().into_iter().chain(links).try_for_each(|entry| layer.apply(entry)).unwrap();
    let refused = layer.end().unwrap_err();
    assert!(matches!(refused, TreeError::LinkTargetMissing { .. }), "{refused}");
}

#[test]
fn a_tree_that_is_not_wanted_any_more_is_given_up_at_once() {
    let started = |stop: &Stop| Builder::new(Rules::Verbatim).until(stop);
    // Before an entry, and while links wait.
    for entries in [vec![file("f", "x")], vec![link("l", "f")]] {
        let stop = Stop::default();
        let mut builder = started(&stop);
        let mut layer = builder.layer();
        for entry in entries {
            layer.apply(entry).unwrap();
        }
        stop.stop();
        assert_eq!(layer.apply(file("g", "x")), Err(TreeError::Stopped));
        match layer.end() {
            Err(error) => assert_eq!(error, TreeError::Stopped),
            Ok(()) => assert!(builder.finish().is_ok(), "nothing was left to do"),
        }
    }
    assert_eq!(TreeError::Stopped.kind(), Kind::Transient);
}

#[test]
fn names_have_at_most_255_bytes() {
    let longest = "n".repeat(255);
    assert_eq!(fold(&[vec![file(&longest, "x")]]), format!("{longest}=x"));
    let too_long = "n".repeat(256);
    for path in [too_long.clone(), format!("{too_long}/f")] {
        let error = refusal(&[vec![file(&path, "x")]]);
        assert_eq!(error, TreeError::NameTooLong { path: format!("/{path}"), length: 256, limit: 255 });
    }
}

#[test]
fn directories_nest_as_deep_as_a_path_reaches() {
    let deepest = ["d"; 2047].join("/");
    assert!(build(Rules::Faithful, &[vec![dir(&deepest)]]).is_ok());
    assert!(matches!(refusal(&[vec![dir(&format!("{deepest}/d"))]]), TreeError::TooDeep { .. }));
    // Nor by way of a symbolic link.
    let mut layer = vec![dir(&["d"; 1500].join("/")), symlink("l", &["d"; 1500].join("/"))];
    layer.push(dir(&format!("l/{}", ["d"; 600].join("/"))));
    assert!(matches!(refusal(&[layer]), TreeError::TooDeep { .. }));
}

#[test]
fn symbolic_links_have_targets_of_1_to_4095_bytes() {
    assert!(build(Rules::Faithful, &[vec![symlink("l", &"t".repeat(4095))]]).is_ok());
    for target in [String::new(), "t".repeat(4096)] {
        let length = target.len();
        let error = refusal(&[vec![symlink("l", &target)]]);
        assert_eq!(error, TreeError::SymlinkTarget { path: "/l".into(), length, limit: 4095 });
    }
}

#[test]
fn device_numbers_are_the_kernel_s() {
    let device = |major, minor| entry("d", EntryKind::BlockDevice(major, minor));
    let dumped = |major, minor| dump(&build(Rules::Verbatim, &[vec![device(major, minor)]]).unwrap());
    assert!(dumped(8, 1).contains("/d 0 60644 1 1 2 2049 "));
    assert!(dumped(0xfff, 0xf_ffff).contains(&format!("/d 0 60644 1 1 2 {} ", u32::MAX)));
    for (major, minor) in [(0x1000, 0), (0, 0x10_0000)] {
        let error = refusal(&[vec![device(major, minor)]]);
        assert_eq!(error, TreeError::DeviceNumber { path: "/d".into(), major, minor });
    }
}

#[test]
fn extended_attributes_must_fit() {
    let refused = |xattrs: Vec<(String, usize)>| {
        let mut odd = file("f", "x");
        let pair = |(name, size): (String, usize)| (name.into_bytes().into(), vec![b'v'; size].into());
        odd.meta.xattrs = xattrs.into_iter().map(pair).collect();
        match build(Rules::Faithful, &[vec![odd]]) {
            Ok(_) => String::new(),
            Err(TreeError::Xattrs { path, reason }) => format!("{path}: {reason}"),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(refused(vec![(format!("user.{}", "n".repeat(250)), 10)]), "");
    assert_eq!(refused(vec![("user.x".to_owned(), 32000)]), "");
    assert!(refused(vec![(format!("user.{}", "n".repeat(251)), 10)]).starts_with("/f: the name "));
    assert!(refused(vec![(String::new(), 10)]).starts_with("/f: the name "));
    assert!(refused(vec![("user.x".to_owned(), 33000)]).contains("bytes"));
    assert!(refused((0..120).map(|at| (format!("user.{at:03}"), 1)).collect()).is_empty());
    assert!(refused((0..121).map(|at| (format!("user.{at:03}"), 1)).collect()).contains("120 are allowed"));
    assert!(refused(vec![("user.b".to_owned(), 1), ("user.a".to_owned(), 1)]).contains("order"));
}

#[test]
fn files_have_sizes_that_an_inode_can_express() {
    let object = |size| entry("f", EntryKind::Object(VerityDigest([7; 32]), size));
    assert!(build(Rules::Faithful, &[vec![object(65), object(1 << 43)]]).is_ok());
    for size in [0, 64, (1 << 43) + 1, u64::MAX] {
        assert_eq!(refusal(&[vec![object(size)]]), TreeError::FileSize { path: "/f".into(), size });
    }
    let inline = |size| entry("f", EntryKind::Inline(vec![b'x'; size].into()));
    assert!(build(Rules::Faithful, &[vec![inline(64)]]).is_ok());
    assert_eq!(refusal(&[vec![inline(65)]]), TreeError::FileSize { path: "/f".into(), size: 65 });
}

#[test]
fn whiteout_devices_have_one_name() {
    let device = entry("d/w", EntryKind::CharDevice(0, 0));
    let error = refusal(&[vec![device.clone(), link("d/x", "d/w"), link("y", "d/w")]]);
    assert_eq!(error, TreeError::LinkedWhiteout { path: "/d/w".into() });
    assert_eq!(fold(&[vec![device, link("x", "d/w")], vec![whiteout("d/w")]]), "d/? x:20644");
}

#[test]
fn the_root_is_a_directory() {
    assert_eq!(refusal(&[vec![file("", "x")]]), TreeError::RootNotADirectory);
}

fn limited(limits: ImageLimits, entry: impl Fn(u32) -> LayerEntry) -> TreeError {
    let mut builder = Builder::with_limits(Rules::Faithful, limits);
    let mut layer = builder.layer();
    (0..).find_map(|at| layer.apply(entry(at)).err()).unwrap()
}

#[test]
fn inodes_and_metadata_are_bounded() {
    let limits = ImageLimits { inodes: 100, metadata_bytes: 10_000, ..ImageLimits::default() };
    let error = limited(limits, |at| file(&at.to_string(), "x"));
    assert_eq!(error, TreeError::Limit(Cap::Inodes.exceeded(101u64, 100u64)));
    assert_eq!(error.kind(), Kind::Exhausted);
    let cap = |error: TreeError| match error {
        TreeError::Limit(exceeded) => (exceeded.cap, exceeded.limit),
        other => panic!("{other}"),
    };
    let refused = (Cap::MetadataBytes, 10_000);
    // Names, link targets, contents and attributes all count, also those that a later entry replaces.
    let limits = ImageLimits { inodes: 1_000_000, metadata_bytes: 10_000, ..ImageLimits::default() };
    assert_eq!(cap(limited(limits, |at| file(&format!("{at:0200}"), ""))), refused);
    assert_eq!(cap(limited(limits, |at| symlink("l", &format!("{at:0200}")))), refused);
    assert_eq!(cap(limited(limits, |at| link("l", &format!("{at:0200}")))), refused);
    assert_eq!(cap(limited(limits, |_| file("f", "content"))), refused);
    let attributed = |at: u32| {
        let mut entry = file("f", "");
        entry.meta.xattrs = vec![(b"user.x".as_slice().into(), at.to_string().into_bytes().into())];
        entry
    };
    assert_eq!(cap(limited(limits, attributed)), refused);
    let few = ImageLimits { image_xattr_bytes: 1000, ..ImageLimits::default() };
    assert_eq!(cap(limited(few, attributed)), (Cap::ImageXattrBytes, 1000));
}

#[test]
fn inodes_freed_by_a_layer_are_used_again_by_the_next() {
    let mut builder =
        Builder::with_limits(Rules::Faithful, ImageLimits { inodes: 10, ..ImageLimits::default() });
    for round in 0..100 {
        let mut layer = builder.layer();
        for at in 0..4 {
            layer.apply(file(&at.to_string(), &round.to_string())).unwrap();
        }
        layer.end().unwrap();
    }
    assert_eq!(view(&builder.finish().unwrap()), "0=99 1=99 2=99 3=99");
}

#[test]
fn markers_count_as_metadata_even_where_they_hide_nothing() {
    let limits = ImageLimits { metadata_bytes: 10_000, ..ImageLimits::default() };
    let mut builder = Builder::with_limits(Rules::Verbatim, limits);
    let mut layer = builder.layer();
    let refused = (0..1000).try_for_each(|n| layer.apply(whiteout(&format!("{n}")))).unwrap_err();
    assert!(
        matches!(&refused, TreeError::Limit(exceeded) if exceeded.cap == Cap::MetadataBytes),
        "{refused}"
    );
}

#[test]
fn as_many_inodes_as_allowed_fit_whatever_layer_they_come_in() {
    let limits = ImageLimits { inodes: 4, ..ImageLimits::default() };
    let fold = |layers: &[Vec<LayerEntry>]| {
        let mut builder = Builder::with_limits(Rules::Verbatim, limits);
        for entries in layers {
            let mut layer = builder.layer();
            entries.iter().try_for_each(|entry| layer.apply(entry.clone()))?;
            layer.end()?;
        }
        builder.finish()
    };
    assert_eq!(fold(&[vec![dir("d"), file("f", "1")], vec![file("g", "1")]]).unwrap().inodes(), 4);
    assert!(fold(&[vec![dir("d"), file("f", "1")], vec![file("g", "1"), file("h", "1")]]).is_err());
}
