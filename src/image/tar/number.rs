//! Numbers in PAX records, and the errors of such records.

use crate::oci::limits::Exceeded;

/// Why a block of records does not parse.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxError {
    Malformed(&'static str),
    Limit(Exceeded),
}

impl From<&'static str> for PaxError {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what)
    }
}

/// A decimal number. `None` for an empty value, which revokes an earlier record.
pub(super) fn decimal(value: &[u8]) -> Result<Option<u64>, &'static str> {
    const WRONG: &str = "a PAX number is not a decimal number below 2^63";
    if value.is_empty() {
        return Ok(None);
    }
    // Signed, so that it fits where a number of the header fits.
    let number = value.iter().try_fold(0i64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    });
    number.map(|number| Some(number as u64)).ok_or(WRONG)
}

/// An owner or group, which may have a sign as in Go's reader. `None` for an empty value.
pub(super) fn id(value: &[u8]) -> Result<Option<i64>, &'static str> {
    let (is_negative, digits) = match value {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        _ => (false, value),
    };
    match decimal(digits)? {
        None if digits.len() < value.len() => Err("a PAX owner or group is a sign without a number"),
        // `decimal` allows no number from 2^63 on.
        number => Ok(number.map(|number| if is_negative { -(number as i64) } else { number as i64 })),
    }
}
