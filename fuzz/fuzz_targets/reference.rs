//! Image references: what a pod's author writes.
//!
//! Held: what parses is printed and parses to the same again, and the printed form is the only one that
//! later parts see; an error is short, whatever was given.

#![no_main]

use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Reference>() {
        Ok(reference) => {
            let printed = reference.to_string();
            assert_eq!(printed.parse().as_ref(), Ok(&reference), "{text:?} prints as {printed:?}");
            let pinned = reference.pinned(Digest::of(b"x"));
            assert_eq!(pinned.to_string().parse(), Ok(pinned));
        }
        Err(error) => assert!(error.to_string().chars().count() < 10_000, "{} for {}", error, text.len()),
    }
});
