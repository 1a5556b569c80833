//! Layers folded into a tree and written as an image, from entries that tar would hardly bring together.
//!
//! Held: an image reads back to the tree it was made of, and the same layers give the same tree; the faithful
//! tree has no device, no pipe and no attribute that would steer overlayfs, and a reduced one gives no rights.

#![no_main]

use composefs_csi::image::tree::{Powers, Reduction, Rules, XattrRule};
use composefs_csi_fuzz::image;
use composefs_csi_fuzz::script::Script;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, script)) = input.split_first() else { return };
    let layers = Script(script).layers();
    let rules = match choice % 6 {
        0 => Rules::Faithful,
        3 => Rules::Verbatim,
        4 => Rules::Reduced { to: Reduction::Unprivileged, special_files: false },
        5 => Rules::Reduced { to: Reduction::NotExecutable, special_files: true },
        1 => Rules::Canonical { xattrs: XattrRule::AllowlistOnly },
        _ => Rules::Canonical { xattrs: XattrRule::KeepUser },
    };
    layers.iter().for_each(|entries| image::record_round_trip(entries));
    let Ok(tree) = image::fold(&layers, rules) else { return };
    let text = image::text(&tree);
    let again = image::fold(&layers, rules).expect("what was folded once");
    assert_eq!(image::text(&again), text, "the same layers, another tree");
    let Powers { special_file, privileged_file, program } = tree.powers();
    if let Rules::Reduced { to, special_files } = rules {
        assert!(privileged_file.is_none() && (special_files || special_file.is_none()));
        assert!(to == Reduction::Unprivileged || program.is_none());
    }
    if !matches!(rules, Rules::Canonical { .. }) {
        let shown = String::from_utf8_lossy(&text);
        assert!(!shown.contains(" trusted.") && !shown.contains(" user.overlay."), "{shown}");
    }
    if rules == Rules::Faithful {
        let special = |line: &&str| {
            line.split(' ')
                .nth(2)
                .is_some_and(|mode| !matches!(mode.as_bytes(), [b'4' | b'@', ..] | [b'1', b'0' | b'2', ..]))
        };
        let shown = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(shown.lines().find(special), None);
    }
    if image::is_sampled(input) && !layers.iter().any(|entries| image::reader_errs_on(entries)) {
        image::round_trip(tree);
    }
});
