//! What decides which secret goes to which server: docker config files and WWW-Authenticate challenges.
//!
//! Input: one byte of choice, then a config or a header. Held: an error never repeats a value of the config; a
//! credential is given out for no other host than its key's; a challenge for a token has a realm that stands
//! in the header.

#![no_main]

use composefs_csi::oci::reference::Reference;
use composefs_csi::oci::Credentials;
use composefs_csi::oci::challenge::{Challenge, choose};
use libfuzzer_sys::fuzz_target;

const IMAGES: [&str; 5] = [
    "registry.example/team/app:1",
    "registry.example:5000/team-a/app",
    "a.b.example/x",
    "docker.io/library/busybox",
    "[::1]:5000/x",
];
/// Where the seeds have their passwords.
const SECRET: &str = "s3cr3t-9f2c";

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 2 {
        0 => config(bytes),
        _ => challenge(bytes),
    }
});

fn config(bytes: &[u8]) {
    let shown = match Credentials::parse(bytes) {
        Ok(credentials) => {
            for image in IMAGES {
                let reference: Reference = image.parse().expect("a reference");
                if let Err(error) = credentials.for_repository(&reference) {
                    assert!(error.to_string().contains("helper"));
                }
            }
            format!("{credentials:?}")
        }
        Err(error) => error.to_string(),
    };
    // Keys and names of helpers are no secrets; values are.
    let text = String::from_utf8_lossy(bytes);
    if text.contains(&format!("\"password\":\"{SECRET}\"")) && text.matches(SECRET).count() == 1 {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

fn challenge(bytes: &[u8]) {
    let Ok(header) = std::str::from_utf8(bytes) else { return };
    if let Some(Challenge::Bearer { realm, .. }) = choose(header.split('\n')) {
        assert!(realm.len() <= header.len());
        let mut rest = header.chars();
        assert!(
            realm.chars().all(|wanted| rest.any(|c| c == wanted)),
            "{realm:?} does not come from {header:?}"
        );
    }
}
