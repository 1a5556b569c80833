//! Numbers of PAX records, and why a record does not parse.

use crate::oci::limits::Exceeded;

/// Why a block of records does not parse.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxWrong {
    Malformed(&'static str),
    Limit(Exceeded),
}

impl From<&'static str> for PaxWrong {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what)
    }
}

/// A decimal number; an empty value takes back what an earlier record said.
pub(super) fn decimal(value: &[u8]) -> Result<Option<u64>, &'static str> {
    const WRONG: &str = "a PAX number is not a decimal number below 2^63";
    if value.is_empty() {
        return Ok(None);
    }
    let number = value.iter().try_fold(0i64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    });
    number.map(|number| Some(number as u64)).ok_or(WRONG)
}
