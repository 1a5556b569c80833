//! Why a layer is not put together from parts, but fetched whole.

/// What does not fit. None of these is an error of the pull: the whole layer is fetched instead, and the log says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The annotations of the layer's descriptor are none of this format.
    #[error("its annotations are not those of zstd:chunked: {0}")]
    Annotations(&'static str),
    /// A table is larger than a node takes.
    #[error("its {what} has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Which table.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
        /// What is taken.
        limit: u64,
    },
    /// A table has another digest than the manifest, or the other table, says.
    #[error("its {0} does not have the digest that is stated for it")]
    Digest(&'static str),
    /// The table of contents is malformed.
    #[error("its table of contents is not sound: {0}")]
    Toc(String),
    /// The tar-split is malformed.
    #[error("its tar-split is not sound: {0}")]
    TarSplit(String),
    /// The two tables describe different archives.
    #[error("its table of contents and its tar disagree: {0}")]
    Disagree(String),
    /// What the format does not describe faithfully.
    #[error("it has {0}, which this format does not describe faithfully")]
    Unfit(&'static str),
    /// What was fetched is not what the table of contents says.
    #[error("the content of {0:?} is not what its table of contents says")]
    Content(String),
}
