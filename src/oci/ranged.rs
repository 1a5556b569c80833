//! Parts of blobs.

use bytes::{Buf as _, Bytes};
use futures_util::{StreamExt as _, TryStreamExt as _, future};

use super::{BlobStream, SourceError};

/// What a source answers to a request for a part of a blob.
pub enum Ranged {
    /// The bytes that were asked for and no others. The stream goes on by itself after a broken connection. It ends with
    /// an error where the server does not keep to ranges after all.
    Part(BlobStream),
    /// The server ignored the range: all of the blob from its first byte, as from [`Source::blob`](super::Source::blob).
    Whole(BlobStream),
    /// The server does not serve the range, for this reason. It may still serve the whole blob.
    Refused(SourceError),
}

impl std::fmt::Debug for Ranged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Part(_) => f.write_str("Part"),
            Self::Whole(_) => f.write_str("Whole"),
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
        }
    }
}

/// A stream without its first `count` bytes.
pub(super) fn without_start(stream: BlobStream, count: u64) -> BlobStream {
    let mut left = count;
    let cut = move |mut chunk: Bytes| {
        let skip = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        chunk.advance(skip);
        left -= skip as u64;
        future::ready(Ok((!chunk.is_empty()).then_some(chunk)))
    };
    stream.try_filter_map(cut).boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn the_start_is_cut_off_wherever_chunks_end() {
        for count in 0..=7 {
            let chunks = ["ab", "", "cde", "fg"].map(|chunk| Ok(Bytes::from(chunk)));
            let rest = without_start(stream::iter(chunks).boxed(), count);
            let rest: Vec<Bytes> = rest.try_collect().await.unwrap();
            assert_eq!(rest.concat(), b"abcdefg"[count as usize..], "{count}");
            assert!(rest.iter().all(|chunk| !chunk.is_empty()), "an empty chunk is an end to some");
        }
    }
}
