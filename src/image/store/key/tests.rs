use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn key(byte: u8) -> NodeKey {
    NodeKey::from_bytes(&[byte; KEY_LENGTH])
}

#[test]
fn codes_are_hmac_sha256_over_lengths_and_parts() {
    // python3: hmac.new(bytes([7]*32), b"".join(len(p).to_bytes(8,"little")+p for p in [b"d",b"ab",b""]), "sha256")
    let expected = "9f34b7ad065ded0bd94add61d822228fb0a83e1d2b376eb492318d1439940cde";
    assert_eq!(hex::encode(key(7).mac("d", &[b"ab", b""])), expected);
}

#[test]
fn a_code_is_good_for_its_key_domain_and_parts_only() {
    let mac = key(1).mac("d", &[b"ab", b"c"]);
    assert!(key(1).verify("d", &[b"ab", b"c"], &mac));
    assert!(!key(2).verify("d", &[b"ab", b"c"], &mac));
    assert!(!key(1).verify("e", &[b"ab", b"c"], &mac));
    assert!(!key(1).verify("d", &[b"a", b"bc"], &mac));
    assert!(!key(1).verify("d", &[b"abc"], &mac));
    assert!(!key(1).verify("d", &[b"ab", b"c"], &mac[..31]));
    assert!(!key(1).verify("d", &[b"ab", b"c"], b""));
}

#[test]
fn authenticated_json_is_json_and_any_changed_byte_shows() {
    let written = key(1).append_mac("d", br#"{"a":1,"b":"x"}"#);
    let value: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(value["a"], 1);
    assert!(key(1).authenticates("d", &written));
    assert!(!key(1).authenticates("e", &written));
    assert!(!key(2).authenticates("d", &written));
    for at in 0..written.len() {
        let mut altered = written.clone();
        altered[at] ^= 1;
        // An upper-case digit of the code is the same code; a flipped bit never makes one of a digit.
        assert!(!key(1).authenticates("d", &altered), "byte {at}");
        assert!(!key(1).authenticates("d", &written[..at]), "cut at {at}");
    }
    assert!(!key(1).authenticates("d", br#"{"a":1,"b":"x"}"#));
}

#[test]
fn a_key_is_made_once_private_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/node.key");
    let made = NodeKey::load_or_create(&path).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o7777), (32, 0o600));
    let again = NodeKey::load_or_create(&path).unwrap();
    assert_eq!(made.mac("d", &[]), again.mac("d", &[]));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    let other = NodeKey::load_or_create(&directory.path().join("other")).unwrap();
    assert_ne!(made.mac("d", &[]), other.mac("d", &[]));
    // As Kubernetes mounts secrets.
    symlink(&path, directory.path().join("link")).unwrap();
    let linked = NodeKey::load_or_create(&directory.path().join("link")).unwrap();
    assert_eq!(made.mac("d", &[]), linked.mac("d", &[]));
}

#[test]
fn many_at_once_get_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.key");
    let made: Vec<_> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| NodeKey::load_or_create(&path).unwrap().mac("d", &[]));
        let running: Vec<_> = (0..8).map(|_| start()).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|mac| *mac == made[0]));
}

#[test]
fn what_is_no_key_of_ours_is_refused_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.key");
    let refused = |kind: Kind, word: &str| {
        let error = NodeKey::load_or_create(&path).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(word) && text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(error.kind(), kind, "{text}");
    };
    fs::write(&path, [1; 31]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    refused(Kind::Corrupt, "31 bytes instead of 32");
    fs::write(&path, [1; 32]).unwrap();
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        refused(Kind::Denied, &format!("{mode:04o}"));
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    NodeKey::load_or_create(&path).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        refused(Kind::Denied, "belongs to user 65534");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(Kind::Corrupt, "is not a file");
}

#[test]
fn nothing_shows_the_key() {
    assert_eq!(format!("{:?}", key(9)), "NodeKey([redacted])");
}
