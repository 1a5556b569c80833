//! Why a claim is refused, and how foreign text is quoted in messages.

use crate::kind::Kind;

/// Why a claim is not an expected signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is malformed.
    #[error("{0}")]
    Malformed(String),
    /// It is well-formed but does not verify.
    #[error("{0}")]
    Invalid(String),
}

impl SignatureError {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}

/// Foreign text made safe for a message: short, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    format!("{short:?}")
}
