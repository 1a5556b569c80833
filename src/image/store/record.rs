//! Records of the store: JSON objects with a format number and a code of the node's key.
//!
//! ```text
//! {"format":2,"algorithm":"...", the record's own members, "mac":"64 hexadecimal digits"}
//! ```
//! A later release may add members: the code covers whatever is there. Volume records are not written here. They carry
//! no code, since what they say is checked against the mounts.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{NodeKey, StoreError};

/// A sort of record.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// What its codes are made for, so that no record passes as one of another sort.
    const DOMAIN: &'static str;
    /// The format written here, in the member `format`. `None` for a sort that was introduced without the member.
    const FORMAT: Option<u32>;
    /// What the member `algorithm` says, where the sort has it. It is not read.
    const ALGORITHM: Option<&'static str> = None;
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordFault {
    /// Not what any release writes, as after a power cut.
    Torn(String),
    /// A later release wrote it, in this format.
    Future(u32),
    /// It carries no code of this node's key.
    Unauthentic,
}

#[derive(Serialize)]
struct Written<'a, R> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<&'static str>,
    #[serde(flatten)]
    record: &'a R,
}

/// What is read before anything else is believed.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// The record as it is kept on disk.
pub(super) fn encode<R: Record>(record: &R, key: &NodeKey) -> Result<Vec<u8>, serde_json::Error> {
    let written = Written { format: R::FORMAT, algorithm: R::ALGORITHM, record };
    Ok(key.seal_json(R::DOMAIN, &serde_json::to_vec(&written)?))
}

/// Reads what [`encode`] wrote with the same key.
pub(super) fn decode<R: Record>(bytes: &[u8], key: &NodeKey) -> Result<R, RecordFault> {
    let torn = |error: serde_json::Error| RecordFault::Torn(error.to_string());
    if bytes.is_empty() {
        return Err(RecordFault::Torn("empty, as after a power cut".to_owned()));
    }
    match R::FORMAT {
        Some(known) => {
            let Head { format } = serde_json::from_slice(bytes).map_err(torn)?;
            // Checked before the code: a later release may make its codes in another way.
            if format > known {
                return Err(RecordFault::Future(format));
            }
            // No earlier format carried a code.
            if format < known {
                return Err(RecordFault::Unauthentic);
            }
        }
        // Without a format number only a whole record is told from what a power cut has left.
        None => drop(serde_json::from_slice::<R>(bytes).map_err(torn)?),
    }
    if !key.authenticates(R::DOMAIN, bytes) {
        return Err(RecordFault::Unauthentic);
    }
    serde_json::from_slice(bytes).map_err(torn)
}

impl RecordFault {
    /// The error for the record in the file `path`, which is `what`.
    pub(super) fn at<R: Record>(self, path: &Path, what: impl FnOnce() -> String) -> StoreError {
        match self {
            Self::Torn(why) => StoreError::Torn { path: path.to_owned(), why },
            Self::Future(found) => {
                StoreError::Future { path: path.to_owned(), found, known: R::FORMAT.unwrap_or_default() }
            }
            Self::Unauthentic => StoreError::unauthentic(path, what()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Numbered {
        a: u32,
    }

    impl Record for Numbered {
        const DOMAIN: &'static str = "numbered";
        const FORMAT: Option<u32> = Some(3);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Bare {
        a: u32,
    }

    impl Record for Bare {
        const DOMAIN: &'static str = "bare";
        const FORMAT: Option<u32> = None;
        const ALGORITHM: Option<&'static str> = Some("x");
    }

    fn key(byte: u8) -> NodeKey {
        NodeKey::from_bytes(&[byte; 32])
    }

    #[test]
    fn what_is_written_is_read_by_the_same_key_as_the_same_sort() {
        let numbered = encode(&Numbered { a: 1 }, &key(1)).unwrap();
        assert!(numbered.starts_with(br#"{"format":3,"a":1,"mac":""#));
        assert_eq!(decode(&numbered, &key(1)), Ok(Numbered { a: 1 }));
        assert_eq!(decode::<Numbered>(&numbered, &key(2)), Err(RecordFault::Unauthentic));
        assert_eq!(decode::<Bare>(&numbered, &key(1)), Err(RecordFault::Unauthentic));
        let bare = encode(&Bare { a: 1 }, &key(1)).unwrap();
        assert!(bare.starts_with(br#"{"algorithm":"x","a":1,"mac":""#));
        assert_eq!(decode(&bare, &key(1)), Ok(Bare { a: 1 }));
    }

    #[test]
    fn a_fault_is_told_from_another() {
        let fault = |bytes: &[u8]| decode::<Numbered>(bytes, &key(1)).unwrap_err();
        for torn in ["", "{", "{}", r#"{"a":1}"#, r#"{"format":"3"}"#] {
            assert!(matches!(fault(torn.as_bytes()), RecordFault::Torn(_)), "{torn}");
        }
        assert_eq!(fault(br#"{"format":4,"shape":"unheard of"}"#), RecordFault::Future(4));
        for foreign in [r#"{"format":2,"a":1}"#, r#"{"format":3,"a":1}"#] {
            assert_eq!(fault(foreign.as_bytes()), RecordFault::Unauthentic, "{foreign}");
        }
        // Authentic, and yet no record of this sort.
        let other = key(1).seal_json(Numbered::DOMAIN, br#"{"format":3,"b":1}"#);
        assert!(matches!(fault(&other), RecordFault::Torn(_)));
        assert!(matches!(decode::<Bare>(b"{}", &key(1)), Err(RecordFault::Torn(_))));
        assert_eq!(decode::<Bare>(br#"{"a":1}"#, &key(1)), Err(RecordFault::Unauthentic));
    }
}
