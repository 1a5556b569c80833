//! The kinds of failure that callers tell apart.
//!
//! Every module has an error enum of its own whose `kind()` says which of these it is;
//! `csi::status` is the only place that turns a kind into a gRPC code. A module must not
//! invent a code, and must not look at another module's message to decide anything.

/// What sort of failure an error is, independent of transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller's input is wrong; the same call can never succeed.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already and differs from what is asked for.
    Conflict,
    /// Another operation on the same thing is under way; try again.
    Busy,
    /// The caller may not have it, or the credentials are missing or wrong.
    Denied,
    /// A limit was reached: disk space, a configured cap.
    Exhausted,
    /// A fault of the network or the far side that is likely to pass.
    Transient,
    /// Bytes are not what their digest or size promised.
    Corrupt,
    /// This node (its kernel, filesystem or settings) cannot do it.
    Unsupported,
    /// The work goes on in the background; ask again.
    Pending,
    /// A defect of ours.
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
}
