//! What the driver keeps in small files: image records, volume records, the controller's states.
//!
//! Input: one byte of choice, then a file. Held: what is accepted is printed and read to the same again; an
//! image record is never taken for another image's.

#![no_main]

use std::path::Path;

use composefs_csi::controller::states::State;
use composefs_csi::oci::digest::Digest;
use composefs_csi::image::store::{ImageRecord, NodeKey};
use composefs_csi::node::volume::record::VolumeRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let path = Path::new("/record");
    match choice % 3 {
        0 => {
            // The file's name, which is the digest of nothing, the one that the seeds are about.
            let manifest = Digest::of(b"");
            let key = NodeKey::from_bytes(&[1; 32]);
            assert!(ImageRecord::parse(path, &manifest, bytes, &key).is_err(), "made without the key");
            // Behind the key the parser must stand on its own.
            let sealed = key.seal_json(ImageRecord::DOMAIN, bytes.trim_ascii_end());
            if let Ok(record) = ImageRecord::parse(path, &manifest, &sealed, &key) {
                assert_eq!(record.manifest, manifest);
                let printed = record.render(&key).expect("a record");
                assert_eq!(ImageRecord::parse(path, &manifest, &printed, &key).expect("our own"), record);
                assert!(ImageRecord::parse(path, &Digest::of(b"another"), &printed, &key).is_err());
            }
        }
        1 => {
            if let Ok(record) = VolumeRecord::parse(path, bytes) {
                let printed = serde_json::to_vec(&record).expect("a record");
                assert_eq!(VolumeRecord::parse(path, &printed).expect("our own"), record);
            }
        }
        _ => {
            if let Ok(state) = State::parse(path, bytes) {
                let printed = serde_json::to_vec(&state).expect("a state");
                assert_eq!(State::parse(path, &printed).expect("our own"), state);
            }
        }
    }
});
