//! PAX extended headers: `LENGTH KEY=VALUE\n` records that override the header that follows
//! (POSIX.1-2017, pax, "pax Extended Header").

use std::collections::BTreeMap;

use super::limits::TarLimits;
use super::number::{PaxError, decimal, id};
use super::sparse::PaxSparse;
use crate::image::entry::Mtime;
use crate::oci::limits::Cap;

/// What extended headers say of an entry. Where they say nothing, the header itself counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Mtime>,
    pub(super) device_major: Option<u64>,
    pub(super) device_minor: Option<u64>,
    pub(super) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Bytes of their names and values.
    xattr_bytes: usize,
    pub(super) sparse: PaxSparse,
}

impl Pax {
    /// Adds a block of records to what is known already. Later records win.
    pub(super) fn read(&mut self, mut block: &[u8], limits: &TarLimits) -> Result<(), PaxError> {
        while !block.is_empty() {
            let (record, rest) = split(block)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("a PAX record has no =")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.set(key, value, limits)?;
            block = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], limits: &TarLimits) -> Result<(), PaxError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return self.set_xattr(name, value, limits);
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.set(key, value, limits);
        }
        match key {
            b"path" => self.path = some(value),
            b"linkpath" => self.link_path = some(value),
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = id(value)?,
            b"gid" => self.gid = id(value)?,
            b"mtime" => self.mtime = time(value)?,
            b"SCHILY.devmajor" => self.device_major = decimal(value)?,
            b"SCHILY.devminor" => self.device_minor = decimal(value)?,
            // No part of an image: times of access and change, names of owners, character sets, checksums.
            _ => {}
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8], limits: &TarLimits) -> Result<(), PaxError> {
        if name.contains(&0) {
            return Err(PaxError::Malformed("an extended attribute's name contains a NUL byte"));
        }
        if !is_kept(name) {
            return Ok(());
        }
        // XATTR_NAME_MAX of Linux.
        if name.len() > 255 {
            return Err(PaxError::Limit(Cap::XattrName.exceeded(name.len(), 255u64)));
        }
        // A running total: a header may set thousands of attributes, or one of them thousands of times.
        match self.xattrs.insert(name.into(), value.into()) {
            Some(replaced) => self.xattr_bytes -= replaced.len(),
            None => self.xattr_bytes += name.len(),
        }
        self.xattr_bytes += value.len();
        if self.xattr_bytes > limits.xattrs {
            return Err(PaxError::Limit(Cap::XattrBytes.exceeded(self.xattr_bytes, limits.xattrs)));
        }
        Ok(())
    }
}

/// Whether an extended attribute belongs to an image, see the documentation of [`super`].
fn is_kept(name: &[u8]) -> bool {
    let known = [&b"user."[..], b"security.", b"system.posix_acl_"];
    known.iter().any(|prefix| name.starts_with(prefix) && name.len() > prefix.len())
        && !name.starts_with(b"user.overlay.")
}

/// Splits the first record off the block, without its length and its newline.
fn split(block: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    const WRONG: &str = "a PAX record's length is wrong";
    // 20 bytes hold every length below 2^63 and its space.
    let space = block.iter().take(20).position(|byte| *byte == b' ').ok_or(WRONG)?;
    let length = decimal(&block[..space])?.and_then(|length| usize::try_from(length).ok()).ok_or(WRONG)?;
    if length > block.len() || length < space + 2 {
        return Err(WRONG);
    }
    let (record, rest) = block.split_at(length);
    let record = record.strip_suffix(b"\n").ok_or("a PAX record does not end in a newline")?;
    Ok((record.get(space + 1..).ok_or(WRONG)?, rest))
}

/// The value, or `None` if it is empty, which revokes an earlier record.
fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// A time in seconds with an optional sign and fraction. Digits beyond the nanosecond are dropped.
fn time(value: &[u8]) -> Result<Option<Mtime>, &'static str> {
    const WRONG: &str = "a PAX time is not a decimal number";
    if value.is_empty() {
        return Ok(None);
    }
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = decimal(parts.next().unwrap_or_default()).map_err(|_| WRONG)?.ok_or(WRONG)? as i64;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    Ok(Some(match (negative, nanos) {
        (false, _) => Mtime { secs: whole, nanos },
        (true, 0) => Mtime { secs: -whole, nanos: 0 },
        // Nanoseconds count forwards, so the seconds are rounded down.
        (true, _) => Mtime { secs: -whole - 1, nanos: 1_000_000_000 - nanos },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        super::super::testing::pax_record(key, value)
    }

    fn read(block: &[u8]) -> Result<Pax, PaxError> {
        let mut pax = Pax::default();
        pax.read(block, &TarLimits::default()).map(|()| pax)
    }

    #[test]
    fn times_before_and_after_the_epoch() {
        for (text, secs, nanos) in [
            (&b"0"[..], 0, 0),
            (b"1.5", 1, 500_000_000),
            (b"1.", 1, 0),
            (b"-1.5", -2, 500_000_000),
            (b"-1", -1, 0),
            (b"-0.000000001", -1, 999_999_999),
            (b"12.1234567899", 12, 123_456_789),
        ] {
            assert_eq!(time(text), Ok(Some(Mtime { secs, nanos })), "{}", text.escape_ascii());
        }
        for bad in [&b"x"[..], b"-", b".5", b"1.5.5", b"1e9", b"--1", b"99999999999999999999"] {
            assert!(time(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn binary_values_later_records_and_dropped_attributes() {
        let block = [
            record(b"path", b"first"),
            record(b"SCHILY.xattr.user.binary", b"a=b\n\0\xff"),
            record(b"SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            record(b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
            record(b"SCHILY.xattr.user.overlay.redirect", b"/x"),
            record(b"SCHILY.xattr.com.apple.provenance", b"x"),
            record(b"path", b"second"),
            record(b"comment", b"whatever"),
        ]
        .concat();
        let pax = read(&block).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"second"[..]));
        let names: Vec<_> = pax.xattrs.keys().map(|name| &name[..]).collect();
        assert_eq!(names, [&b"security.capability"[..], b"user.binary"]);
        assert_eq!(&pax.xattrs[&b"user.binary"[..]][..], b"a=b\n\0\xff");
    }

    #[test]
    fn owners_may_be_negative_and_sizes_may_not() {
        let ids = |value: &[u8]| read(&record(b"uid", value)).map(|pax| pax.uid);
        assert_eq!(ids(b"-2"), Ok(Some(-2)));
        assert_eq!(ids(b"+7"), Ok(Some(7)));
        assert_eq!(ids(b""), Ok(None), "revokes an earlier record");
        for bad in [&b"-"[..], b"+", b"--2", b"- 2", b"2-", b"9223372036854775808"] {
            assert!(ids(bad).is_err(), "{}", bad.escape_ascii());
            assert!(read(&record(b"size", b"-2")).is_err());
        }
    }

    #[test]
    fn lying_records_are_refused() {
        let bad: [&[u8]; 9] = [
            b"99 path=x\n",
            b"3 a=b\n",
            b"0 path=x\n",
            b"path=x\n",
            b"9 path=xy",
            b"8 pathx\n",
            b"99999999999999999999999 path=x\n",
            b"-9 path=x\n",
            b"9 size=-1\n",
        ];
        for block in bad {
            assert!(read(block).is_err(), "{}", block.escape_ascii());
        }
        let huge = record(b"SCHILY.xattr.user.x", &[0; 70_000]);
        assert!(matches!(read(&huge), Err(PaxError::Limit(_))));
    }
}
