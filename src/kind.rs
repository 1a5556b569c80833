//! The kinds of failure that callers distinguish.
//!
//! Every module has its own error enum, whose `kind()` returns one of these. Only `csi::status` maps kinds to gRPC
//! codes. A module must not choose a code itself, and must not decide anything by the text of another module's
//! error.

/// What sort of failure an error is, independent of transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller's input is wrong; the same call can never succeed.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The named thing already exists and differs from the request.
    Conflict,
    /// Another operation on the same thing is in progress; try again.
    Busy,
    /// The caller is not permitted, or its credentials are missing or wrong.
    Denied,
    /// A limit was reached: disk space or a configured limit.
    Exhausted,
    /// A failure of the network or the remote side that is likely to be temporary.
    Transient,
    /// Bytes do not match their digest or size.
    Corrupt,
    /// This node (its kernel, filesystem or settings) cannot do it.
    Unsupported,
    /// The work continues in the background; ask again.
    Pending,
    /// A defect of this program.
    Bug,
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 11] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Busy,
        Self::Denied,
        Self::Exhausted,
        Self::Transient,
        Self::Corrupt,
        Self::Unsupported,
        Self::Pending,
        Self::Bug,
    ];

    /// Its name in metrics and in the output of commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::Transient => "transient",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Pending => "pending",
            Self::Bug => "bug",
        }
    }
}
