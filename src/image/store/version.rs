//! The file `version`: which format the store has, so that an older release never misreads it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;

/// The file, in the store's directory.
pub(super) const FILE: &str = "version";
/// The format written here. A release reads its own format only; a change comes with a migration.
const FORMAT: u32 = 1;
const ALGORITHM: &str = "sha256";

#[derive(Debug, Serialize, Deserialize)]
struct Version {
    format: u32,
    algorithm: String,
}

/// What the file of a new store holds.
pub(super) fn render() -> String {
    format!("{{\"format\":{FORMAT},\"algorithm\":\"{ALGORITHM}\"}}\n")
}

/// Accepts the format of this release and refuses every other. `store` is for the message.
pub(super) fn check(store: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let parsed: Result<Version, _> = serde_json::from_slice(bytes);
    match parsed {
        Ok(version) if version.format == FORMAT && version.algorithm == ALGORITHM => Ok(()),
        Ok(version) => Err(StoreError::Version {
            store: store.to_owned(),
            found: format!("format {} with {}", version.format, version.algorithm),
            known: FORMAT,
        }),
        Err(error) => {
            Err(StoreError::Torn { path: store.join(FILE), why: format!("not a version: {error}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_format_is_read() {
        let store = Path::new("/s");
        assert!(check(store, render().as_bytes()).is_ok());
        for newer in [r#"{"format":2,"algorithm":"sha256"}"#, r#"{"format":1,"algorithm":"sha512","x":1}"#] {
            let error = check(store, newer.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), crate::kind::Kind::Unsupported, "{error}");
            assert!(error.to_string().contains("/s"), "{error}");
        }
        for torn in ["", "{", "{\"format\":1}"] {
            assert!(matches!(check(store, torn.as_bytes()), Err(StoreError::Torn { .. })), "{torn:?}");
        }
    }
}
